//! Reports: in progress at first, complete after some polls, as JSON or PDF.

mod content;

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    call::{Call, merge, pick},
    consumers,
    customers::username,
    dates::date,
    pdf,
    reply::{Failure, Outcome, PDF, Reply, Webhook},
    route::Route,
    world::World,
};

const CALLBACK: &str = "callbackUrl:u";

/// An operation that generates a report, and the notation of its request body.
const fn generate(template: &'static str, body: &'static str) -> Route {
    Route::new("POST", template, start).query(CALLBACK).body(body)
}

const ASSETS: &str = "accountIds:s reportCustomFields:[{label:s value:s shown:b}] showNsf:b fromDate:i";
const INCOME: &str = "accountIds:s reportCustomFields:[{label:s value:s shown:b}] showNsf:b fromDate:i incomeFromDate:i \
    incomeStreamConfidenceMinimum:i reportId:s";
const PAYROLL: &str = "payrollData*:{ssn:s dob:i reportId:s payrollAccountIds:[s]} reportCustomFields:[{label:s value:s shown:b}] \
    payStatementsFromDate:i marketSegment:s purpose:s";
const ANALYTICS: &str = "analyticsReportData:{forCraPurpose:b applicantIsPersonalGuarantor:b forFtcPurpose:b timeIntervalTypes:[s](,2)} \
    accountIds:s reportCustomFields:[{label:s value:s shown:b}] fromDate:i";
const RISK: &str = "analyticsReportData:{forCraPurpose*:b forFtcPurpose:b timeIntervalTypes:[s](,2) applicantIsPersonalGuarantor:b} \
    reportCustomFields:[{label:s value:s shown:b}] accountIds:s fromDate:i";
const FORESIGHT: &str = "analyticsReportData:{forCraPurpose:b segments:{geolocation:[{label:s value:s}]} analytics:[s](2,2) \
    timeIntervalTypes:[s](,2) income:i(0,) age:i(0,125)} accountIds:s fromDate:i customerId:i externalCustomerId:s(1,100)";
const SBCA: &str = "analyticsReportData*:{sbcaParams*:{hasConsent*:b metricFrequency*:s metricType*:s locationId*:g} \
    businessDetails*:{name*:s personallyLiable*:b phoneNumber*:{countryCode*:s(1,3) phoneNo*:s(7,12)} \
    address*:{addressLine1*:s(,50) addressLine2:s(,50) city*:s state*:s country*:s postalCode*:s}}}";

const FETCH: &str = "onBehalfOf:s purpose:s";

pub(super) const ROUTES: &[Route] = &[
    generate("/decisioning/v2/customers/{customerId}/voa", ASSETS),
    generate("/decisioning/v2/customers/{customerId}/voaHistory", INCOME),
    generate("/decisioning/v2/customers/{customerId}/preQualVoa", ASSETS),
    generate("/decisioning/v2/customers/{customerId}/assetSummary", ASSETS),
    generate("/decisioning/v2/customers/{customerId}/voi", INCOME),
    generate("/decisioning/v2/customers/{customerId}/voePayroll", PAYROLL),
    generate("/decisioning/v2/customers/{customerId}/voiePayroll", PAYROLL),
    generate("/decisioning/v2/customers/{customerId}/voeTransactions", INCOME),
    generate(
        "/decisioning/v2/customers/{customerId}/payStatement",
        "paystatementReport*:{assetIds*:[s] extractEarnings:b extractDeductions:b extractDirectDeposit:b} \
         reportCustomFields:[{label:s value:s shown:b}]",
    ),
    generate(
        "/decisioning/v2/customers/{customerId}/voieTxVerify/withInterview",
        "accountIds:s voieWithInterviewData*:{txVerifyInterview*:[{assetId*:s accounts:[s]}] extractEarnings:b extractDeductions:b \
         extractDirectDeposit:b} reportCustomFields:[{label:s value:s shown:b}] fromDate:i incomeStreamConfidenceMinimum:i",
    ),
    generate(
        "/decisioning/v2/customers/{customerId}/voieTxVerify/withStatement",
        "voieWithStatementData*:{assetIds*:[s] extractEarnings:b extractDeductions:b extractDirectDeposit:b} \
         reportCustomFields:[{label:s value:s shown:b}]",
    ),
    generate(
        "/decisioning/v2/customers/{customerId}/statement",
        "statementReportData*:{accountId*:i statementIndex:i(,24)} reportCustomFields:[{label:s value:s shown:b}]",
    ),
    generate(
        "/decisioning/v2/customers/{customerId}/transactions",
        "accountIds:s fromDate:i toDate:i reportCustomFields:[{label:s value:s shown:b}] \
         findTransaction:{findTransactionDescriptionMemo:s findTransactionAmountFrom:n findTransactionAmountTo:n \
         findTransactionCategory:[s](,10)}",
    )
    .query("callbackUrl:u fromDate:i toDate:i includePending:b"),
    generate("/decisioning/v2/customers/{customerId}/cashFlowBusiness", INCOME),
    generate("/decisioning/v2/customers/{customerId}/cashFlowPersonal", INCOME),
    generate("/decisioning/v2/customers/{customerId}/reports/balance-analytics/userTypes/{userType}", ANALYTICS),
    generate("/decisioning/v2/customers/{customerId}/reports/cashflow-analytics/userTypes/{userType}", ANALYTICS),
    generate("/decisioning/customers/{customerId}/reports/payment-history/userTypes/business", ANALYTICS),
    generate("/decisioning/customers/{customerId}/reports/payment-risk-insights/userTypes/{userType}", RISK),
    generate("/decisioning/customers/{customerId}/reports/foresight-analytics/userTypes/{userType}", FORESIGHT),
    generate("/decisioning/reports/foresight-analytics/userTypes/{userType}", FORESIGHT),
    Route::new("POST", "/decisioning/customers/{customerId}/sbca", small_business).body(SBCA),
    Route::new("GET", "/decisioning/sbca/location-matches", locations)
        .query("idType:s(,100) idValue:s(,100) merchantName:s(,250) streetAddress:s(,250) city:s stateProvinceRegion:s postalCode:s"),
    Route::new("POST", "/decisioning/v3/reports/{reportId}", fetch).query(FETCH).body("purpose:s"),
    Route::new("POST", "/decisioning/v1/reports/{reportId}/partners", fetch).body("purpose:s"),
    Route::new("GET", "/decisioning/v1/customers/{customerId}/reports/{reportId}", fetch).query(FETCH),
    Route::new("GET", "/decisioning/v2/customers/{customerId}/reports/{reportId}", fetch).query(FETCH),
    Route::new("GET", "/decisioning/v3/customers/{customerId}/reports/{reportId}", fetch).query(FETCH),
    Route::new("GET", "/decisioning/v1/consumers/{consumerId}/reports/{reportId}", fetch).query(FETCH),
    Route::new("GET", "/decisioning/v2/consumers/{consumerId}/reports/{reportId}", fetch).query(FETCH),
    Route::new("GET", "/decisioning/v3/consumers/{consumerId}/reports/{reportId}", fetch).query(FETCH),
    Route::new("GET", "/decisioning/v1/customers/{customerId}/reports", list),
    Route::new("GET", "/decisioning/v1/consumers/{consumerId}/reports", list),
    Route::new("GET", "/decisioning/v1/customers/{customerId}/portfolios/{portfolioId}", portfolio),
    Route::new("GET", "/decisioning/v1/consumers/{consumerId}/portfolios/{portfolioId}", portfolio),
    Route::new("GET", "/decisioning/v1/portfolios/{portfolioId}", portfolio),
    Route::new("GET", "/decisioning/v1/partners/{partnerId}/billing/reseller", billing)
        .query("startDate*:i endDate*:i size:i(1,1000) page:i(0,) viewTestingReports:b"),
    Route::new("GET", "/analytics/ca360/v1/customers/{customerId}/analytics", list),
];

/// Parts of the templates of analytics reports, with the prefixes of their types.
const ANALYTICS_TYPES: [(&str, &str); 4] =
    [("balance-analytics", "bar"), ("cashflow-analytics", "cfr"), ("payment-history", "phr"), ("payment-risk", "pri")];

/// Last segments of templates, with the types of their reports where these differ.
const TYPES: [(&str, &str); 5] = [
    ("cashFlowBusiness", "cfrb"),
    ("cashFlowPersonal", "cfrp"),
    ("payStatement", "paystatement"),
    ("withInterview", "voieWithInterview"),
    ("withStatement", "voieWithStatement"),
];

/// The vendor's abbreviation for the type of the report that `call` generates.
fn report_type(call: &Call) -> String {
    let template = call.operation.template();
    if template.contains("foresight") {
        return "farpbfnoncra".to_owned();
    }
    if let Some((_, prefix)) = ANALYTICS_TYPES.iter().find(|(part, _)| template.contains(part)) {
        let data = call.body.at("analyticsReportData");
        let user = if call.param("userType") == "personal" { "p" } else { "b" };
        let purpose = match (data.flag("forCraPurpose"), data.flag("forFtcPurpose")) {
            (true, _) => "cra",
            (_, true) => "ftc",
            _ => "noncra",
        };
        return format!("{prefix}{user}{purpose}");
    }
    let last = template.rsplit('/').next().unwrap_or("");
    TYPES.iter().find(|(segment, _)| *segment == last).map_or(last, |(_, kind)| kind).to_owned()
}

/// The members of the request that the report repeats. Account identifiers become a list, except in Foresight and payment risk reports.
fn constraints(call: &Call, kind: &str) -> Value {
    let mut constraints = pick(
        call.body,
        &[
            "accountIds",
            "reportCustomFields",
            "showNsf",
            "fromDate",
            "toDate",
            "incomeFromDate",
            "incomeStreamConfidenceMinimum",
            "reportId",
            "payStatementsFromDate",
            "paystatementReport",
            "voieWithInterviewData",
            "voieWithStatementData",
            "statementReportData",
            "findTransaction",
            "analyticsReportData",
        ],
    );
    if let Some(payroll) = call.body.get("payrollData") {
        constraints.set("payrollData", &pick(payroll, &["reportId", "payrollAccountIds"]));
    }
    if let Some(ids) = call.body.at("accountIds").as_str()
        && !["farp", "prip", "prib"].iter().any(|prefix| kind.starts_with(prefix))
    {
        constraints.set("accountIds", &ids.split([' ', ',']).filter(|id| !id.is_empty()).collect::<Vec<_>>());
    }
    constraints
}

/// The customer of the report, from the path or the body; empty when neither has one.
fn customer_of(world: &World, call: &Call) -> Result<String, Failure> {
    if !call.customer_id().is_empty() {
        return Ok(call.customer_id().to_owned());
    }
    let id = call.body.at("customerId").to_string();
    match world.get("customers", &id) {
        Some(_) => Ok(id),
        None if call.body.at("customerId").is_null() => Ok(String::new()),
        None => Err(Failure::not_found("14001", "Customer")),
    }
}

fn start(world: &mut World, call: &Call) -> Outcome {
    let customer = customer_of(world, call)?;
    let username = username(world, call).to_owned();
    if username.starts_with("freeze") {
        return Err(Failure::new(403, "10405", "A security freeze is active"));
    }
    if !["", "personal", "business"].contains(&call.param("userType")) {
        return Err(Failure::invalid("userType", "business or personal"));
    }
    for id in call.text("accountIds").split([' ', ',']).filter(|id| !id.is_empty()) {
        if world.get("accounts", id).is_none_or(|account| account.at("customerId") != customer.as_str()) {
            return Err(Failure::invalid("accountIds", "accounts of the customer"));
        }
    }
    let nth = world.next("reports");
    let id = format!("{}-{nth}", &world.hex_id(&["report", &customer, &nth])[..12]);
    let kind = report_type(call);
    let callback = call.query("callbackUrl").map(str::to_owned);
    // A client with a callback does not poll.
    let polls = match &callback {
        Some(_) => 0,
        None => username.strip_prefix("report-slow-").and_then(|polls| polls.parse::<u64>().ok()).unwrap_or(1),
    };
    let consumer = consumers::of(world, &customer).map(Value::copy).unwrap_or_default();
    let is_analytics = call.operation.template().contains("/reports/");
    if consumer.is_null() && !is_analytics {
        return Err(Failure::not_found("14001", "Consumer"));
    }
    let mut report = json!({
        "id": id, "customerType": world.get("customers", &customer).map_or_else(|| json!("testing"), |known| known.at("type").copy()),
        "requestId": &world.hex_id(&["request", &id])[..10], "requesterName": "Sandbox partner", "createdDate": world.now(),
        "title": format!("Sandbox report ({kind})"), "type": kind, "status": "inProgress", "constraints": constraints(call, &kind),
    });
    if let Ok(number) = customer.parse::<u64>() {
        report.set("customerId", &number);
        let count = world.having("reports", "customerId", &customer).len() + 1;
        report.set("portfolioId", &format!("{}-{count}-port", portfolio_base(world, &customer)));
    }
    if is_analytics {
        report.set("reportPin", &format!("{:05}", world.hash(&["pin", &id]) % 100_000));
    }
    merge(&mut report, &pick(call.body, &["externalCustomerId"]));
    if let Some(consumer_id) = consumer.at("id").as_str() {
        report.set("consumerId", &consumer_id);
        report.set("consumerSsn", consumer.at("ssn"));
    }
    let mut record = report.copy();
    record.set("_polls", &polls);
    record.set("_fails", &username.starts_with("report-failure"));
    world.put("reports", &id, record);
    let mut reply = Reply::json(202, &report);
    if let Some(url) = callback {
        let mut body = pick(&report, &["customerId", "consumerId", "consumerSsn", "type", "createdDate"]);
        merge(&mut body, &json!({"eventType": "done", "reportId": id, "status": final_status(world, &id)}));
        reply.webhooks.push(Webhook { url, body, headers: Vec::new(), secret: None });
    }
    Ok(reply)
}

fn final_status(world: &World, id: &str) -> &'static str {
    if world.get("reports", id).is_some_and(|report| report.flag("_fails")) { "failure" } else { "success" }
}

fn portfolio_base(world: &World, customer: &str) -> String {
    world.hex_id(&["portfolio", customer])[..12].to_owned()
}

/// A report without the sandbox's internal members.
fn shown(report: &Value) -> Value {
    let mut shown = report.copy();
    if let Some(members) = shown.as_object_mut() {
        members.retain(|name, _| !name.starts_with('_'));
    }
    shown
}

/// Whether `report` belongs to the customer and consumer in the path of `call`.
fn is_of_path(call: &Call, report: &Value) -> bool {
    let (customer, consumer) = (call.customer_id(), call.param("consumerId"));
    (customer.is_empty() || super::world::is_text(report.at("customerId"), customer))
        && (consumer.is_empty() || report.at("consumerId") == consumer)
}

fn fetch(world: &mut World, call: &Call) -> Outcome {
    let id = call.param("reportId");
    let Some(report) = world.get_mut("reports", id).filter(|report| is_of_path(call, report)) else {
        return Err(Failure::not_found("14001", "Report"));
    };
    let polls = report.at("_polls").as_u64().unwrap_or(0);
    report.set("_polls", &polls.saturating_sub(1));
    if polls > 0 {
        return Reply::ok(&shown(report));
    }
    let report = report.copy();
    let mut complete = shown(&report);
    complete.set("status", &final_status(world, id));
    if complete.at("status") == "failure" {
        complete.set(
            "errors",
            &json!([{"code": "100", "status": "failure", "message": "The report could not be generated"}]),
        );
    } else {
        content::add(world, call, &mut complete);
    }
    if let Some(record) = world.get_mut("reports", id) {
        record.set("status", complete.at("status"));
    }
    if call.accepts_pdf() {
        let lines = [
            complete.text("title").to_owned(),
            format!("Report {}, {}", complete.text("id"), complete.text("status")),
            format!("Generated {}", date(world.now())),
        ];
        return Ok(Reply::bytes(200, PDF, pdf::page(&lines)));
    }
    Reply::ok(&complete)
}

fn list(world: &mut World, call: &Call) -> Outcome {
    let of_consumer =
        world.get("consumers", call.param("consumerId")).map(|consumer| consumer.at("customerId").to_string());
    let customer = of_consumer.as_deref().unwrap_or(call.customer_id());
    let is_throttled =
        world.get("customers", customer).is_some_and(|customer| customer.text("username").starts_with("throttled"));
    if is_throttled {
        return Err(Failure::new(429, "429", "Too many requests"));
    }
    let members = ["id", "requestId", "requesterName", "createdDate", "consumerId", "consumerSsn", "type", "status"];
    let rows: Vec<Value> =
        world.all("reports").filter(|report| is_of_path(call, report)).map(|report| pick(report, &members)).collect();
    Reply::ok(&json!({"reports": rows}))
}

fn portfolio(world: &mut World, call: &Call) -> Outcome {
    let id = call.param("portfolioId");
    let parts: Vec<&str> = id.split('-').collect();
    let (base, version) = match parts.as_slice() {
        [base, "port"] => (*base, usize::MAX),
        [base, version, "port"] if version.parse::<usize>().is_ok() => (*base, version.parse().unwrap_or(usize::MAX)),
        _ => return Err(Failure::new(400, "10100", "Invalid parameter (portfolioId): the form is ID-VERSION-port")),
    };
    let of_path = |customer: &&Value| {
        let id = customer.text("id");
        let (wanted, consumer) = (call.customer_id(), call.param("consumerId"));
        portfolio_base(world, id) == base
            && (wanted.is_empty() || wanted == id)
            && (consumer.is_empty() || consumers::of(world, id).is_some_and(|known| known.at("id") == consumer))
    };
    let Some(customer) = world.all("customers").find(of_path).and_then(|customer| customer.at("id").as_str()) else {
        return Err(Failure::not_found("14001", "Portfolio"));
    };
    let reports = world.having("reports", "customerId", customer);
    let members = ["id", "portfolioId", "type", "status", "createdDate"];
    let rows: Vec<Value> = reports.iter().take(version).map(|report| pick(report, &members)).collect();
    let consumer = consumers::of(world, customer).map(Value::copy);
    let by_id_alone = call.customer_id().is_empty() && call.param("consumerId").is_empty();
    if rows.is_empty() && by_id_alone {
        return Reply::empty(204);
    }
    let mut body = json!({"portfolioId": id, "reports": rows});
    match consumer {
        Some(mut consumer) if call.customer_id().is_empty() => {
            let suffix = consumer.text("suffix").to_owned();
            consumer.set("suffix", &suffix);
            body.set("consumer", &consumer);
        }
        None if by_id_alone => return Err(Failure::not_found("14001", "Consumer")),
        _ => {}
    }
    Reply::ok(&body)
}

fn billing(world: &mut World, call: &Call) -> Outcome {
    let (start, end) = (call.number("startDate").unwrap_or(0), call.number("endDate").unwrap_or(0));
    let within = |report: &&Value| report.at("createdDate").as_i64().is_some_and(|at| (start..=end).contains(&at));
    let rows: Vec<Value> = world
        .all("reports")
        .filter(within)
        .map(|report| {
            let mut row = pick(report, &["customerId", "consumerId", "consumerSsn", "createdDate", "status"]);
            merge(
                &mut row,
                &json!({"reseller": "Sandbox partner", "reportId": report.at("id"), "reportType": report.at("type")}),
            );
            row
        })
        .collect();
    let size = call.number("size").and_then(|size| usize::try_from(size).ok()).unwrap_or(20);
    let page = call.number("page").and_then(|page| usize::try_from(page).ok()).unwrap_or(0);
    let pages = rows.len().div_ceil(size);
    let total = rows.len();
    let shown: Vec<Value> = rows.into_iter().skip(page * size).take(size).collect();
    let sort = json!({"unsorted": true, "sorted": false, "empty": true});
    Reply::ok(&json!({
        "totalPages": pages, "totalElements": total, "numberOfElements": shown.len(), "number": page, "size": size, "first": page == 0,
        "last": page + 1 >= pages, "empty": shown.is_empty(), "sort": sort, "content": shown,
        "pageable": {"paged": true, "unpaged": false, "pageNumber": page, "pageSize": size, "sort": sort, "offset": page * size},
    }))
}

fn small_business(world: &mut World, call: &Call) -> Outcome {
    let mut report = call.example(world, "smallBusiness");
    report.set("constraints", &json!({"analyticsReportData": call.body.at("analyticsReportData")}));
    Reply::ok(&report)
}

fn locations(world: &mut World, call: &Call) -> Outcome {
    Reply::ok(&call.example(world, "locationMatches"))
}
