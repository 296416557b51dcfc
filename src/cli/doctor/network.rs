//! The steps of a connection to the upstream: DNS, egress proxy, TCP, TLS, and the upstream's clock. They send no credentials.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::join_all;
use http::{HeaderValue, Method, Uri, header};
use humantime::{format_duration, format_rfc3339_seconds};
use tokio::{net::TcpStream, time::timeout};

use super::{
    STEP_TIMEOUT, clock,
    report::{Finding, Report, StepName},
};
use crate::{
    cli::local_client::{self, BoxedStream, LocalRequest},
    config::Config,
    credentials::Scheme,
    dns::{Addresses, Resolver},
    egress::{self, Tunnel},
    secret::ShownPath,
    tls::{self, TlsFailure},
    token::{Clock, Route, classify::TokenFailure, scheme},
    upstream,
};

/// A certificate with less time left than this is overdue for renewal: most are renewed a month before they expire.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 3600;

/// Whether the upstream was reached.
#[derive(Debug)]
pub(super) enum Reached {
    /// A step before it failed.
    Not,
    /// The connection was established, but a request without credentials got no valid response. Holds the reason.
    Silent(String),
    /// The upstream responded.
    Responded,
}

/// The network steps.
pub(super) struct Network<'a> {
    config: &'a Config,
    url: &'a Uri,
    egress: Option<&'a egress::Config>,
    route: Route,
    /// The maximum time of a step.
    limit: Duration,
}

impl<'a> Network<'a> {
    /// The steps for the upstream in `config`.
    pub(super) fn new(config: &'a Config) -> Self {
        let upstream = &config.proxy.upstream;
        let (url, egress) = (&upstream.url, upstream.egress.as_ref());
        let route = Route::new(url, egress).expect("the configuration checked the hosts");
        Self { config, url, egress, route, limit: upstream.connect_timeout.min(STEP_TIMEOUT) }
    }

    /// Runs all steps. `scheme` is the credentials' scheme, if they are known.
    pub(super) async fn examine(&self, report: &mut Report, scheme: Option<Scheme>) -> Reached {
        let after_dns = [StepName::EgressProxy, StepName::Tcp, StepName::Tls, StepName::Clock];
        let skip = |report: &mut Report, steps: &[StepName], missing: StepName| {
            for step in steps {
                report.add(*step, Finding::skipped(format!("requires {}", missing.as_str())));
            }
            Reached::Not
        };
        let Some(addresses) = report.step(StepName::Dns, self.dns()).await else {
            return skip(report, &after_dns, StepName::Dns);
        };
        let (tcp, last) = if let Some(egress) = self.egress {
            let tunnel = report.step(StepName::EgressProxy, self.tunnel(egress, &addresses)).await;
            report.add(StepName::Tcp, Finding::skipped("the egress proxy connects to the upstream"));
            (tunnel, StepName::EgressProxy)
        } else {
            report.add(StepName::EgressProxy, Finding::skipped("upstream.egress_proxy is not set"));
            (report.step(StepName::Tcp, self.tcp(&addresses)).await, StepName::Tcp)
        };
        let Some(tcp) = tcp else { return skip(report, &after_dns[2..], last) };
        let stream: BoxedStream = if self.is_plaintext() {
            report.add(StepName::Tls, Finding::skipped("upstream.url is http:// on this machine"));
            Box::new(tcp)
        } else {
            let Some(stream) = report.step(StepName::Tls, self.tls(tcp)).await else {
                return skip(report, &after_dns[3..], StepName::Tls);
            };
            stream
        };
        let scheme = scheme.or(self.config.credentials.scheme).unwrap_or(Scheme::OAuth2);
        report.step(StepName::Clock, self.clock(stream, scheme)).await.unwrap_or(Reached::Not)
    }

    fn is_plaintext(&self) -> bool {
        self.url.scheme_str() == Some("http")
    }

    /// The URL and the default port of the first connection, and the configuration key that sets them.
    fn first_hop(&self) -> (&Uri, u16, &'static str) {
        match self.egress {
            Some(egress) => (&egress.url, 80, "upstream.egress_proxy"),
            None => (self.url, if self.is_plaintext() { 80 } else { 443 }, "upstream.url"),
        }
    }

    async fn dns(&self) -> (Finding, Option<Vec<SocketAddr>>) {
        let (url, port, key) = self.first_hop();
        let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(port));
        let addresses: Addresses = match Resolver::new().lookup(host, self.limit).await {
            Ok(addresses) => addresses,
            Err(error) => return (failed(&self.route.tcp_failure(&error, self.limit)), None),
        };
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let finding = if is_address {
            Finding::ok(format!("{key} has an IP address: {host}"))
        } else {
            let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Finding::ok(format!("{host} resolves to {}", listed.join(", ")))
        };
        (finding, Some(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()))
    }

    /// Opens a tunnel through `egress`, which has one of `addresses`.
    async fn tunnel(&self, egress: &egress::Config, addresses: &[SocketAddr]) -> (Finding, Option<TcpStream>) {
        let target = egress::target(self.url.authority().expect("the configuration checked the upstream's authority"));
        let tunnel = Tunnel::new(&target, egress.authorization.as_ref());
        let opened = async {
            let mut stream = TcpStream::connect(addresses)
                .await
                .map_err(|error| failed(&self.route.tcp_failure(&error, self.limit)))?;
            tunnel.open(&mut stream).await.map_err(|error| failed(&self.route.egress_failure(&error)))?;
            Ok(stream)
        };
        let (hop, key) = self.route.first_hop();
        match timeout(self.limit, opened).await {
            Ok(Ok(stream)) => (Finding::ok(format!("{hop} opened a tunnel to {target}")), Some(stream)),
            Ok(Err(finding)) => (finding, None),
            Err(_) => {
                let detail = format!("{hop} opened no tunnel to {target} within {}", format_duration(self.limit));
                let remedy = format!(
                    "check {key}, that firewalls permit the connection, and that the egress proxy can reach {target}"
                );
                (Finding::failed(detail, remedy), None)
            }
        }
    }

    /// Connects to each of `addresses`. Returns the first connection in their order.
    async fn tcp(&self, addresses: &[SocketAddr]) -> (Finding, Option<TcpStream>) {
        let connect = |address: SocketAddr| async move {
            let stream = match timeout(self.limit, TcpStream::connect(address)).await {
                Ok(result) => result,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            (address, stream.and_then(|stream| self.permitted(address, stream)))
        };
        let (mut open, mut reached, mut unreached) = (None, Vec::new(), Vec::new());
        for (address, result) in join_all(addresses.iter().map(|address| connect(*address))).await {
            match result {
                Ok(stream) => {
                    open = open.or(Some(stream));
                    reached.push(address);
                }
                Err(error) => unreached.push((address, error)),
            }
        }
        (self.connections(&reached, &unreached), open)
    }

    /// The finding for the connection attempts to all addresses.
    fn connections(&self, reached: &[SocketAddr], unreached: &[(SocketAddr, io::Error)]) -> Finding {
        let to: Vec<String> = reached.iter().map(ToString::to_string).collect();
        let not_to: Vec<String> =
            unreached.iter().map(|(address, error)| format!("{address}: {}", error.kind())).collect();
        let (to, not_to) = (to.join(", "), not_to.join(", "));
        // On a machine without IPv6, connecting to an IPv6 address fails immediately and delays no request.
        let is_without_route = |error: &io::Error| error.kind() == io::ErrorKind::NetworkUnreachable;
        match (reached, unreached) {
            (_, []) => Finding::ok(format!("connected to {to}")),
            ([], [(_, error), ..]) => {
                let failure = self.route.tcp_failure(error, self.limit);
                Finding::failed(format!("{} ({not_to})", failure.reason), failure.remedy.as_ref())
            }
            (_, unreached) => {
                let detail = format!("connected to {to}, but not to {not_to}");
                if unreached.iter().all(|(_, error)| is_without_route(error)) {
                    return Finding::ok(detail);
                }
                let remedy = "the proxy falls back to other addresses, which takes time; check routes, firewalls, and DNS records";
                Finding::warning(detail, remedy)
            }
        }
    }

    /// `stream`, or an error if it would carry plaintext to another machine.
    fn permitted(&self, address: SocketAddr, stream: TcpStream) -> io::Result<TcpStream> {
        let is_permitted = !self.is_plaintext() || address.ip().is_loopback();
        is_permitted.then_some(stream).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Performs the TLS handshake over `tcp`, and describes the server's certificates.
    async fn tls(&self, tcp: TcpStream) -> (Finding, Option<BoxedStream>) {
        let endpoint = self.route.endpoint();
        let unusable = |error: &tls::Error| {
            (Finding::failed(error.to_string(), "check upstream.ca_file and upstream.public_roots"), None)
        };
        let trust_store = match tls::trust_store(self.config.tls.clone()) {
            Ok((_, trust_store)) => trust_store,
            Err(error) => return unusable(&error),
        };
        let name = upstream::server_name(self.url.host().unwrap_or_default())
            .expect("the configuration checked the upstream's host");
        let client_config = Arc::new(trust_store.client_config());
        let stream = match timeout(self.limit, tls::Stream::connect(client_config, name.clone(), tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let failure = self.route.tls_failure(&error);
                let limit = tls::exceeded_limit(&error).map(|limit| format!("; {limit}")).unwrap_or_default();
                let remedy =
                    TlsFailure::find(&error).map_or(failure.remedy.to_string(), |fault| self.tls_remedy(fault));
                return (Finding::failed(format!("{}{limit}", failure.reason), remedy), None);
            }
            Err(_) => {
                let limit = format_duration(self.limit);
                let detail =
                    format!("{endpoint} accepted the connection but did not complete the TLS handshake within {limit}");
                let remedy = "check that host and port in upstream.url are those of a TLS server, and whether a firewall or gateway \
                              blocks the handshake";
                return (Finding::failed(detail, remedy), None);
            }
        };
        let chain = stream.peer_certificates();
        match tls::describe_chain(&self.config.tls, chain, &name) {
            Ok(description) => (self.certificate(chain.len(), &description), Some(Box::new(stream))),
            Err(error) => unusable(&error),
        }
    }

    /// The finding for a verified `chain` of `count` certificates.
    fn certificate(&self, count: usize, chain: &tls::ChainDescription) -> Finding {
        let now = Clock::Boot.unix_time();
        let pins = match self.config.tls.pinned_keys.len() {
            0 => "no pinned keys".to_owned(),
            pins => format!("the key matches one of {pins} in upstream.pinned_keys"),
        };
        let certificates = if count == 1 { "certificate" } else { "certificates" };
        let text =
            format!("{count} {certificates} for {}, trusted by {}; {pins}", chain.names, self.trusted(chain.ca_count));
        let Some(until) = chain.valid_until else { return Finding::ok(text) };
        let left = until.saturating_sub(now);
        let (days, end) = (left.as_secs() / DAY, format_rfc3339_seconds(UNIX_EPOCH + until));
        let text = format!("{text}; valid until {end} ({days} days left)");
        if left >= EXPIRES_SOON {
            return Finding::ok(text);
        }
        Finding::warning(
            text,
            "have the certificate renewed before it expires: the proxy sends no request without a valid one",
        )
    }

    /// Describes the trusted CAs. `ca_count` of them come from `upstream.ca_file`.
    fn trusted(&self, ca_count: usize) -> String {
        let tls = &self.config.tls;
        let file = tls.ca_file.as_deref().map(|path| {
            let certificates = if ca_count == 1 { "CA" } else { "CAs" };
            format!("upstream.ca_file {} ({ca_count} {certificates})", ShownPath::new(path))
        });
        let public = tls.public_roots.then(|| "the public CAs".to_owned());
        file.into_iter().chain(public).collect::<Vec<_>>().join(" or ")
    }

    /// The remedy for a handshake that failed because of `fault`.
    fn tls_remedy(&self, fault: TlsFailure) -> String {
        let (endpoint, now) = (self.route.endpoint(), format_rfc3339_seconds(UNIX_EPOCH + Clock::Boot.unix_time()));
        match fault {
            TlsFailure::UnknownIssuer => {
                let file = match &self.config.tls.ca_file {
                    Some(path) => format!("upstream.ca_file, which is {}", ShownPath::new(path)),
                    None => "upstream.ca_file, which is not set".to_owned(),
                };
                format!(
                    "`openssl s_client -connect {endpoint} -showcerts` shows the issuer. If it is a private CA that you trust, add its \
                     certificate to {file}. If the server sends only its own certificate, have it send the intermediate ones, too. \
                     Otherwise a gateway in between terminates TLS"
                )
            }
            TlsFailure::Expired => {
                format!("have the server's certificate renewed; if it is valid, correct this machine's clock, which says {now}")
            }
            TlsFailure::NotYetValid => {
                format!("correct this machine's clock, which says {now}; if it is right, have the server's certificate replaced")
            }
            TlsFailure::NameMismatch => {
                "set upstream.url to a name that the certificate covers, or check that DNS and gateways lead to the right server"
                    .to_owned()
            }
            TlsFailure::PinMismatch => {
                "if the vendor announced a new key, add its pin to upstream.pinned_keys (see docs/tls.md); otherwise the connection may \
                 be intercepted: do not add a pin that the vendor has not announced"
                    .to_owned()
            }
            TlsFailure::BadCertificate => {
                "have the server's certificate replaced, and check whether a gateway in between terminates TLS".to_owned()
            }
            TlsFailure::ProtocolVersion => {
                "enable TLS 1.2 or 1.3 on the server, and check whether a gateway in between terminates TLS".to_owned()
            }
        }
    }

    /// Sends the refresher's probe of the token endpoint over `stream`, and compares clocks by the `Date` of the response.
    async fn clock(&self, stream: BoxedStream, scheme: Scheme) -> (Finding, Option<Reached>) {
        let authority = self.url.authority().expect("the configuration checked the upstream's authority");
        let path = scheme::token_path(scheme, &self.config.token);
        let mut request = LocalRequest::new(Method::GET, path);
        request.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let sent = Clock::Boot.unix_time();
        let response = timeout(self.limit, local_client::exchange(stream, authority.as_str(), None, &request)).await;
        let received = Clock::Boot.unix_time();
        let silent = |reason: String| (Finding::skipped(reason.clone()), Some(Reached::Silent(reason)));
        let endpoint = self.route.endpoint();
        match response {
            Ok(Ok(response)) => (clock::skew(&response.into_parts().0, sent, received), Some(Reached::Responded)),
            Ok(Err(_)) => silent(format!("{endpoint} sent no valid response to a request without credentials")),
            Err(_) => {
                let limit = format_duration(self.limit);
                silent(format!("{endpoint} sent no response to a request without credentials within {limit}"))
            }
        }
    }
}

/// The finding for a `failure`, with the reason and remedy that a token request would report.
fn failed(failure: &TokenFailure) -> Finding {
    Finding::failed(failure.reason.as_ref(), failure.remedy.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Inputs};

    #[tokio::test]
    async fn an_unroutable_address_is_ok_if_another_one_connects() {
        let inputs = Inputs { flags: vec![("upstream.url".into(), "https://h.test".into())], ..Inputs::default() };
        let config = config::load(&inputs).unwrap();
        let network = Network::new(&config);
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let unreached = |kind: io::ErrorKind| (address("[2001:db8::1]:443"), io::Error::from(kind));
        let works = [address("192.0.2.1:443")];
        for (reached, kinds, outcome, text) in [
            (&works[..], &[][..], "Ok", "connected to 192.0.2.1:443"),
            (&works, &[io::ErrorKind::NetworkUnreachable], "Ok", "not to [2001:db8::1]:443: network unreachable"),
            (&works, &[io::ErrorKind::ConnectionRefused], "Warning", "not to [2001:db8::1]:443: connection refused"),
            (&works, &[io::ErrorKind::NetworkUnreachable, io::ErrorKind::TimedOut], "Warning", "timed out"),
            (&[], &[io::ErrorKind::NetworkUnreachable], "Failed", "check routes, firewalls"),
            (&[], &[io::ErrorKind::TimedOut], "Failed", "no response within"),
        ] {
            let unreached: Vec<_> = kinds.iter().map(|kind| unreached(*kind)).collect();
            let finding = format!("{:?}", network.connections(reached, &unreached));
            assert!(finding.contains(outcome) && finding.contains(text), "{finding}");
        }
    }
}
