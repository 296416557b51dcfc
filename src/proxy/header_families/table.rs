//! The patterns of the families. `docs/requests.md` lists them too, and a test compares the two.

use super::HeaderFamily;

/// The patterns of each family. If several match a name, the first one applies.
pub(super) const FAMILIES: [(HeaderFamily, &[&str]); 7] = [
    (HeaderFamily::Message, MESSAGE),
    (HeaderFamily::Injected, &["app-key", "app-token", "authorization", "finicity-app-*"]),
    (HeaderFamily::Override, OVERRIDE),
    (HeaderFamily::Trace, TRACE),
    (HeaderFamily::Credentials, CREDENTIALS),
    (HeaderFamily::Identity, IDENTITY),
    (HeaderFamily::Network, NETWORK),
];

#[rustfmt::skip]
const MESSAGE: &[&str] = &[
    "connection", "expect", "host", "http2-settings", "keep-alive", "proxy-*", "te", "trailer", "trailers",
    "transfer-encoding", "upgrade",
];

#[rustfmt::skip]
const OVERRIDE: &[&str] = &[
    "x-http-method", "x-http-method-override", "x-method-override", "x-http-host-override", "x-http-destinationurl",
    "x-original-method", "x-original-uri", "x-original-url", "x-rewrite-uri", "x-rewrite-url", "x-url-rewrite",
];

#[rustfmt::skip]
const TRACE: &[&str] = &[
    // W3C, Zipkin, Jaeger, OpenTracing, OpenCensus
    "traceparent", "tracestate", "traceresponse", "baggage", "b3", "x-b3-*", "uber-trace-id", "uberctx-*",
    "jaeger-*", "ot-*", "x-ot-*", "ottrace", "otel-*", "x-otel-*", "opentelemetry-*", "x-opentelemetry-*",
    "opentracing-*", "x-opentracing-*", "grpc-trace-bin", "grpc-tags-bin", "x-census-*", "correlation-context",
    "request-context", "trace-*", "x-trace", "x-trace-*", "x-traceid", "x-tracing-*", "span-*", "x-span-*",
    "x-parent-span-*", "parent-id", "x-parent-id", "*-trace-id", "*-traceid", "*-span-id", "*-spanid",
    "*-trace-context", "*-traceparent", "*-tracestate", "*-baggage",
    // Application monitoring vendors
    "x-datadog-*", "datadog-*", "x-dd-*", "newrelic", "newrelic-*", "x-newrelic-*", "x-nr-*", "elastic-apm-*",
    "x-elastic-*", "sentry-*", "x-sentry-*", "x-instana-*", "instana-*", "x-dynatrace*", "dynatrace*", "x-dtc",
    "x-dtpc", "x-dtreferer", "x-dt-*", "dtcookie", "x-appdynamics-*", "appdynamics-*", "singularityheader", "adrum*",
    "x-splunk-*", "splunk-*", "signalfx-*", "x-signalfx-*", "lightstep-*", "x-lightstep-*", "x-ls-*",
    "x-honeycomb-*", "honeycomb-*", "wf-ot-*", "x-wavefront-*", "wavefront-*", "sw3", "sw6", "sw7", "sw8", "sw8-*",
    "x-skywalking-*", "pinpoint-*", "x-pinpoint-*", "x-scouter-*", "haystack-*", "x-tingyun-*", "x-oneapm-*",
    "x-stackify-*", "x-retrace-*", "x-contrast-*", "x-raygun-*", "x-rollbar-*", "x-bugsnag-*", "bugsnag-*",
    "x-airbrake-*", "x-logrocket-*", "x-solarwinds-*", "x-appoptics-*", "x-scoutapm-*", "x-appsignal-*",
    "x-coralogix-*", "x-grafana-*", "x-faro-*", "x-cloud-trace-context", "x-amzn-trace-id", "x-amzn-requestid",
    "x-amz-cf-id", "x-client-trace-id", "x-xray-*", "eagleeye-*", "x-eagleeye-*", "x-cat-id", "x-cat-root-id",
    "x-cat-parent-id", "x-ray-id", "x-vcap-request-id",
];

#[rustfmt::skip]
const CREDENTIALS: &[&str] = &[
    // Generic names
    "token", "*-token", "*-jwt", "*-assertion", "*-api-key", "apikey", "*-apikey", "api-keys", "*-api-secret",
    "*-app-key", "*-application-key", "*-access-key", "*-access-key-id", "*-secret-key", "*-secret-access-key",
    "*-private-key", "*-license-key", "*-subscription-key", "*-functions-key", "*-function-key", "*-master-key",
    "*-service-key", "*-account-key", "*-auth-key", "*-shared-key", "*-client-key", "*-client-id", "*-client-secret",
    "*-insert-key", "*-query-key", "*-admin-key", "*-user-key", "*-encryption-key", "*-secret", "secrets",
    "*-password", "*-passwd", "*-passphrase", "*-credential", "*-credentials", "*-authorization", "*-bearer",
    "*-otp", "*-totp", "jsessionid", "phpsessid", "cookie", "cookie2", "set-cookie", "set-cookie2", "x-cookie",
    "dpop", "x-csrf-*", "csrf-*", "x-xsrf-*", "xsrf-*", "x-csrftoken", "x-wsse", "x-api-user*", "api-user*",
    "x-api-auth-*", "x-api-key-*", "api-key-*", "x-publishable-key", "x-xsrftoken", "*-authtoken", "*-accesstoken",
    "accesstoken", "authtoken", "x-token-*", "x-secret-*",
    // Secret stores, clouds, code hosts
    "x-vault-*", "x-consul-*", "x-nomad-*", "x-boundary-*", "x-hashicorp-*", "x-amz-security-token",
    "x-amz-content-sha256", "x-aws-*", "aws-*", "metadata-flavor", "x-goog-iam-*", "x-goog-api-*", "x-ms-token-*",
    "x-identity-header", "x-zumo-*", "ocp-apim-*", "x-ibm-*", "x-oss-*", "x-acs-*", "x-tc-*", "x-cos-*", "x-obs-*",
    "x-bce-*", "opc-*", "private-token", "x-jfrog-*", "x-nuget-*", "x-rapidapi-*", "x-mashape-*", "x-auth-key",
    "x-auth-email", "x-hub-signature*", "x-doppler-*", "x-infisical-*", "x-conjur-*", "x-akeyless-*",
    "x-service-account*",
];

#[rustfmt::skip]
const IDENTITY: &[&str] = &[
    // Generic names
    "from", "x-auth", "x-auth-*", "auth-*", "x-authenticated*", "x-authentication-*", "authentication-*",
    "x-authn-*", "x-authz-*", "x-remote-*", "remote-*", "*-remote-user", "*-remote-group", "*-remote-groups",
    "logon-user", "x-logon-user", "x-user", "x-user-id", "x-user-ids", "x-userid", "x-user-name", "x-username",
    "x-user-email", "x-user-mail", "x-user-group*", "x-user-role*", "x-user-login", "x-user-info", "x-user-claim*",
    "x-user-principal*", "x-user-scope*", "x-user-permission*", "x-user-dn", "x-user-sub", "x-user-uuid",
    "x-user-context", "x-end-user", "x-end-user-*", "end-user", "end-user-id", "*-userinfo", "x-email", "x-groups",
    "x-roles", "x-claims", "x-claim-*", "x-jwt-*", "jwt-*", "x-principal", "x-principal-id", "x-principal-name",
    "x-client-principal*", "x-subject", "x-subject-id", "x-subject-dn", "x-identity", "x-identity-*",
    "x-impersonate-*", "impersonate-*", "x-on-behalf-of", "x-act-as", "x-run-as", "x-scope-orgid", "x-current-user*",
    "x-login-*", "x-sso-*", "sso-*", "x-saml-*", "saml-*", "x-oidc-*", "oidc-*", "x-oauth-*", "oauth-*",
    "x-oauth2-*", "x-idp-*", "x-openid-*", "x-ldap-*", "x-kerberos-*", "x-ntlm-*", "x-spiffe-*", "spiffe-*",
    "x-svid*", "x-acr", "x-caller-identity", "x-caller-principal", "x-actor-*",
    // Client certificates (RFC 9440 and its predecessors)
    "client-cert", "client-cert-*", "*-client-cert", "x-client-cert*", "client-certificate*",
    "x-client-certificate*", "*-clientcert", "x-client-dn", "x-client-verify", "x-client-verified", "x-client-ssl*",
    "x-client-subject*", "x-client-issuer*", "x-client-san", "x-client-san-*", "x-client-serial*",
    "x-client-fingerprint*", "x-client-spki*", "x-ssl-*", "ssl-*", "ssl", "x-tls-*", "tls-*", "x-mtls-*", "mtls-*",
    "x-cert-*", "x-certificate-*", "x-peer-cert*", "x-xfcc*", "x-arr-clientcert",
    // Identity products
    "x-goog-authenticated-*", "x-goog-iap-*", "x-endpoint-api-*", "x-apigateway-api-*", "x-ms-client-principal*",
    "x-amzn-oidc-*", "x-amzn-mtls-*", "cf-access-*", "x-authentik-*", "authentik-*", "x-authelia-*", "authelia-*",
    "x-pomerium-*", "pomerium-*", "x-teleport-*", "teleport-*", "x-vouch-*", "x-keycloak-*", "keycloak-*",
    "x-okta-*", "okta-*", "x-auth0-*", "auth0-*", "x-ory-*", "x-hydra-*", "x-kratos-*", "x-zitadel-*", "x-dex-*",
    "x-casdoor-*", "x-cognito-*", "x-azure-ad-*", "x-adfs-*", "gap-auth", "gap-signature", "gap-upstream-address",
    "x-webauth-*", "webauth-*", "tailscale-*", "x-tailscale-*", "shib-*", "x-shib-*", "shibboleth-*", "mellon-*",
    "sm-*", "smuser", "smsession", "x-siteminder-*", "iv-*", "oam-*", "x-oam-*", "obsso*", "x-pingaccess-*",
    "x-ping-*", "x-forgerock-*", "x-ca-sso-*", "x-consumer-id", "x-consumer-username", "x-consumer-custom-id",
    "x-consumer-groups", "x-credential-*", "x-anonymous-consumer", "x-iis-*", "x-iisnode-*", "ms-aspnetcore-*",
    "x-windows-*", "x-nginx-*", "x-cas-*", "cas-*", "eppn", "x-eppn", "msisdn", "x-msisdn", "x-up-*", "x-nokia-*",
    "x-imsi", "x-hasura-*", "x-firebase-*", "x-shibboleth-*", "displayname", "x-bearer-*",
];

#[rustfmt::skip]
const NETWORK: &[&str] = &[
    // Forwarding
    "forwarded", "forwarded-*", "x-forwarded", "x-forwarded-*", "x-forwardedfor", "xff", "x-forward", "x-forward-*",
    "via", "x-via", "x-via-*", "origin", "referer", "referrer", "x-original-*", "x-rewrite-*", "x-originating-*",
    "x-origin", "x-origin-*", "x-oreferrer", "x-real-ip", "x-real-port", "x-real-host", "x-real-addr",
    "x-real-scheme", "real-ip", "x-realip", "realip", "x-true-client-*", "true-client-*", "x-host", "x-hostname",
    "x-scheme", "x-proto", "x-port", "x-url-scheme", "x-protocol", "x-proxied*", "x-proxy", "x-proxy-*",
    "x-proxyuser-*", "x-proxymesh-*", "front-end-https", "x-request-start", "x-queue-start", "x-request-received*",
    "x-coming-from", "x-wap-*", "http-*", "x-cluster-*", "x-cluster", "base-url", "request-uri",
    // Addresses
    "*-client-ip", "*-clientip", "clientip", "*-client-ips", "*-client-ipv4", "*-client-ipv6", "*-connecting-ip",
    "*-connecting-ipv4", "*-connecting-ipv6", "*-connection-ip", "*-client-connection-ip", "*-connecting-port",
    "*-client-port", "*-client-addr", "*-client-address", "*-client-host", "*-client-hostname", "*-client-asn",
    "*-client-geo", "*-client-region", "*-client-city", "*-client-country", "x-client-geo*", "x-client-data",
    "*-socket-ip", "*-socketip", "*-real-ip", "*-true-ip", "*-remote-ip", "*-remote-addr", "*-remote-address",
    "*-remote-host", "*-remote-port", "*-src-ip", "*-source-ip", "*-sourceip", "*-source-addr", "*-peer-ip",
    "*-peer-addr", "*-peer-address", "*-original-ip", "*-origin-ip", "*-originating-ip", "*-forwarded-for",
    "*-forwarded-ip", "*-forwarded-host", "*-forwarded-proto", "*-caller-ip", "*-user-ip", "*-user-addr",
    "*-end-user-ip", "*-customer-ip", "*-visitor-ip", "*-viewer-ip", "*-viewer-address", "*-host-ip", "*-server-ip",
    "*-node-ip", "*-pod-ip", "*-internal-ip", "*-external-ip", "*-public-ip", "*-private-ip", "*-local-ip",
    "*-external-address", "*-downstream-ip", "*-proxy-ip", "*-gateway-ip", "*-edge-ip", "*-device-ip",
    "*-request-ip", "x-ip", "x-ips", "x-ip-address", "ip", "remoteip", "*-ip-address", "*-mac-address", "x-geo-*",
    "geoip-*", "x-geoip-*",
    // Meshes, gateways, clusters
    "x-envoy-*", "envoy-*", "x-istio-*", "istio-*", "l5d-*", "x-l5d-*", "x-linkerd-*", "linkerd-*", "x-kuma-*",
    "x-kong-*", "kong-*", "x-traefik-*", "traefik-*", "x-haproxy-*", "x-caddy-*", "x-varnish*", "x-squid-*",
    "x-apisix-*", "x-tyk-*", "x-gravitee-*", "x-wso2-*", "x-3scale-*", "x-apigee-*", "x-ambassador-*", "x-contour-*",
    "x-gloo-*", "x-gateway-*", "x-ingress-*", "x-mesh-*", "x-sidecar-*", "x-service-mesh-*", "x-dapr-*", "dapr-*",
    "x-k8s-*", "x-kube-*", "x-kubernetes-*", "x-pod-*", "x-node-name", "x-node-id", "x-upstream-*", "x-downstream-*",
    "x-backend-*", "x-lb-*", "x-loadbalancer-*", "x-f5-*", "x-netscaler-*", "ns-client-*", "x-citrix-*", "wl-*",
    "x-weblogic-*", "x-websphere-*", "x-was-*", "wsai", "wscc", "wscs", "wsis", "wsit", "wspc", "wspr", "wsra",
    "wsrh", "wsru", "wssc", "wssi", "wssn", "wssp", "x-zscaler-*", "x-bluecoat-*", "x-forcepoint-*", "x-netskope-*",
    "x-mcafee-*", "x-fortinet-*", "x-barracuda-*", "x-waf-*", "x-cf-*", "x-vcap-*", "x-heroku-*", "connect-time",
    "x-accel-*", "x-sendfile*", "knative-*", "k-network-*", "k-proxy-*", "total-route-time",
    // Clouds
    "x-amz-*", "x-amzn-*", "amz-*", "cloudfront-*", "x-cloudfront-*", "x-alb-*", "x-elb-*", "x-apigw-*",
    "x-lambda-*", "lambda-*", "x-azure-*", "x-fd-*", "x-ms-*", "x-arr-*", "x-appservice-*", "x-site-deployment-id",
    "x-waws-*", "disguised-host", "was-default-hostname", "x-goog-*", "x-google-*", "x-gfe-*", "x-appengine-*",
    "x-cloud-*", "x-serverless-*", "x-oracle-*", "x-oci-*", "x-alibaba-*", "x-aliyun-*", "x-digitalocean-*",
    "do-connecting-*", "fly-*", "x-fly-*", "x-vercel-*", "x-now-*", "x-nf-*", "x-netlify-*", "x-railway-*",
    "x-render-origin-server", "rndr-*", "x-koyeb-*", "x-scaleway-*", "x-ovh-*", "x-hetzner-*",
    // Content delivery networks
    "cf-*", "cdn-*", "x-cdn*", "cloudflare-*", "x-cloudflare-*", "fastly-*", "x-fastly-*", "akamai-*", "x-akamai-*",
    "x-edge-*", "x-edgescape", "edge-*", "x-msedge-*", "incap-*", "x-incap-*", "x-iinfo", "x-imperva-*",
    "x-sucuri-*", "sucuri-*", "x-stackpath-*", "x-bunny-*", "x-keycdn-*", "x-cachefly-*", "x-limelight-*",
    "x-llnw-*", "x-edgecast-*", "x-ec-*", "x-gcore-*", "x-qiniu-*", "ali-*", "x-ali-*", "eo-*", "x-eo-*",
    "tencent-*", "x-tencent-*", "x-yottaa-*", "x-section-io-*", "x-quic-cloud-*", "surrogate-capability",
];
