//! Pages of lists.

use serde_json::Value;

use super::call::Call;
use super::value::{Record as _, json};

/// The requested part of a list, from a validated query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Position of the first row, counted from 1.
    pub(super) start: usize,
    pub(super) limit: usize,
}

/// `rows` sorted by `key`, in a stable order. All types of rows share one instance of the sort, because each adds 7 KB to the program.
pub(super) fn ordered<T>(rows: Vec<T>, key: impl Fn(&T) -> (Option<i64>, Option<i64>)) -> Vec<T> {
    let mut order: Vec<_> = (0..).zip(&rows).map(|(index, row)| (key(row), index)).collect();
    order.sort_unstable();
    let mut rows: Vec<Option<T>> = rows.into_iter().map(Some).collect();
    order.into_iter().filter_map(|(_, index): (_, usize)| rows[index].take()).collect()
}

impl Page {
    /// The page requested by the query of `call`, with `limit` rows unless the query has a limit.
    pub(super) fn of(call: &Call, limit: usize) -> Self {
        let number = |name| call.number(name).and_then(|number| usize::try_from(number).ok());
        Self { start: number("start").unwrap_or(1).max(1), limit: number("limit").unwrap_or(limit) }
    }

    /// The rows of this page, and whether there are more.
    pub(super) fn cut<T>(self, rows: Vec<T>) -> (Vec<T>, bool) {
        let found = rows.len();
        let shown: Vec<T> = rows.into_iter().skip(self.start - 1).take(self.limit).collect();
        let more = self.start - 1 + shown.len() < found && !shown.is_empty();
        (shown, more)
    }

    /// The body of a paged response: the rows of this page as the member `name`, with their counts.
    pub(super) fn wrap(self, name: &str, rows: Vec<Value>) -> Value {
        let found = rows.len();
        let (shown, more) = self.cut(rows);
        let mut page = json!({"found": found, "displaying": shown.len(), "moreAvailable": more});
        page.set(name, &shown);
        page
    }
}
