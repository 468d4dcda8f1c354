//! How many requests were answered how, by route.

use std::sync::OnceLock;

use metrics::Counter;

use super::routes::ROUTES;

/// The statuses that are counted apart.
const STATUSES: [u16; 24] = [
    200, 201, 202, 206, 301, 302, 304, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 416, 422, 429, 431, 500, 501,
    503,
];

/// `keyreeve_http_requests_total` by route and status: looked up in the recorder once, then a single addition.
pub(super) struct Counts {
    rows: Vec<[OnceLock<Counter>; STATUSES.len()]>,
}

impl Default for Counts {
    fn default() -> Self {
        // The last row counts what no route takes.
        Self { rows: (0..=ROUTES.len()).map(|_| Default::default()).collect() }
    }
}

impl Counts {
    /// Counts one answer.
    pub(super) fn count(&self, row: usize, status: u16) {
        let column = STATUSES.iter().position(|known| *known == status);
        let Some(counter) = column.and_then(|column| self.rows.get(row)?.get(column)) else { return };
        let counter = counter.get_or_init(|| {
            let (method, path) = ROUTES.get(row).map_or(("-", "-"), |route| (route.method.as_str(), route.path));
            let method = method.to_owned();
            metrics::counter!("keyreeve_http_requests_total", "method" => method, "route" => path, "status" => status.to_string())
        });
        counter.increment(1);
    }
}
