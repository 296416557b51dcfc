//! Customers, accounts and transactions, in the vendor's shapes.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    auth::error_response,
    state::SandboxState,
    store::{FIRST_CUSTOMER, customer},
};

/// The accounts that every customer has.
const ACCOUNTS: [(u64, &str, f64); 2] = [(5_011_648_377, "checking", 1_204.11), (5_011_648_378, "savings", 8_800.0)];

/// The maximum number of rows on a page, and the default.
const MAX_PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 25;

pub(super) fn routes() -> Router<Arc<SandboxState>> {
    Router::new()
        .route("/aggregation/v1/customers", get(list_customers))
        .route("/aggregation/v2/customers", get(list_customers))
        .route("/aggregation/v2/customers/testing", post(add_customer))
        .route("/aggregation/v2/customers/active", post(add_customer))
        .route("/aggregation/v1/customers/{customer}", get(one_customer).delete(remove_customer))
        .route("/aggregation/v1/customers/{customer}/accounts", get(accounts).post(accounts))
        .route("/aggregation/v4/customers/{customer}/accounts/{account}/transactions", get(transactions))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default = "default_start")]
    start: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_start() -> usize {
    1
}

fn default_limit() -> usize {
    DEFAULT_PAGE
}

impl Page {
    /// The rows of this page, and whether there are more ; the vendor counts from 1.
    fn response(&self, rows: Vec<Value>, name: &str) -> Response {
        if self.start == 0 || self.limit == 0 || self.limit > MAX_PAGE {
            return error_response(StatusCode::BAD_REQUEST, "14020", "start counts from 1, limit goes from 1 to 1000");
        }
        let found = rows.len();
        let shown: Vec<Value> = rows.into_iter().skip(self.start - 1).take(self.limit).collect();
        let more = self.start - 1 + shown.len() < found;
        Json(json!({ "found": found, "displaying": shown.len(), "moreAvailable": more, name: shown })).into_response()
    }
}

async fn list_customers(State(state): State<Arc<SandboxState>>, Query(page): Query<Page>) -> Response {
    page.response(state.customers.with(|customers| customers.clone()), "customers")
}

async fn add_customer(State(state): State<Arc<SandboxState>>, body: Bytes) -> Response {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct NewCustomer {
        username: String,
        #[serde(default)]
        first_name: String,
        #[serde(default)]
        last_name: String,
    }

    let Ok(new) = serde_json::from_slice::<NewCustomer>(&body) else {
        return error_response(StatusCode::BAD_REQUEST, "14020", "a customer needs a username");
    };
    let added = state.customers.with(|customers| {
        if customers.iter().any(|customer| customer["username"] == new.username) {
            return None;
        }
        let id = FIRST_CUSTOMER + 1 + fastrand::u64(..1_000_000_000);
        let added = customer(id, &new.username, &new.first_name, &new.last_name);
        customers.push(added.clone());
        Some(added)
    });
    match added {
        Some(added) => {
            let created =
                json!({ "id": added["id"], "username": added["username"], "createdDate": added["createdDate"] });
            (StatusCode::CREATED, Json(created)).into_response()
        }
        None => error_response(StatusCode::CONFLICT, "11000", "this username is taken"),
    }
}

async fn one_customer(State(state): State<Arc<SandboxState>>, Path(id): Path<u64>) -> Response {
    state.customers.find(id).map_or_else(customer_not_found, |customer| Json(customer).into_response())
}

async fn remove_customer(State(state): State<Arc<SandboxState>>, Path(id): Path<u64>) -> Response {
    let id = Value::from(id.to_string());
    let removed = state.customers.with(|customers| {
        let before = customers.len();
        customers.retain(|customer| customer["id"] != id);
        customers.len() < before
    });
    if removed { StatusCode::NO_CONTENT.into_response() } else { customer_not_found() }
}

async fn accounts(State(state): State<Arc<SandboxState>>, Path(customer): Path<u64>) -> Response {
    if state.customers.find(customer).is_none() {
        return customer_not_found();
    }
    let accounts = ACCOUNTS.map(|(id, kind, balance)| {
        json!({
            "id": id.to_string(), "customerId": customer.to_string(), "type": kind, "balance": balance,
            "currency": "USD", "status": "active", "number": "xxxx1234",
        })
    });
    Json(json!({ "accounts": accounts })).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransactionQuery {
    from_date: u64,
    to_date: u64,
    #[serde(default = "default_start")]
    start: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

async fn transactions(
    State(state): State<Arc<SandboxState>>,
    Path((customer, account)): Path<(u64, u64)>,
    query: Result<Query<TransactionQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return error_response(StatusCode::BAD_REQUEST, "14020", "fromDate and toDate are needed, in epoch seconds");
    };
    if state.customers.find(customer).is_none() || ACCOUNTS.iter().all(|(id, ..)| *id != account) {
        return error_response(StatusCode::NOT_FOUND, "38003", "there is no such account");
    }
    if query.from_date > query.to_date {
        return error_response(StatusCode::BAD_REQUEST, "14020", "fromDate is after toDate");
    }
    let day = 24 * 3600;
    let days = (query.from_date.div_ceil(day)..=query.to_date / day).take(MAX_PAGE);
    let rows = days.map(|number| {
        json!({
            "id": 100_000 + number, "accountId": account, "customerId": customer, "amount": -4.5,
            "description": "Coffee", "status": "active", "postedDate": number * day,
        })
    });
    Page { start: query.start, limit: query.limit }.response(rows.collect(), "transactions")
}

fn customer_not_found() -> Response {
    error_response(StatusCode::NOT_FOUND, "14001", "there is no such customer")
}
