//! What an error of PostgreSQL means: about one row, or about the work as a whole.

use flow::Fault;
use tokio_postgres::Error;

use super::connect::explain;

/// A failure that concerns the work as a whole. `doing` completes "cannot …".
///
/// All of them are worth trying again: connections come back, and a missing right or table is mended on the server,
/// where nobody can know that a gateway is waiting for it.
pub(super) fn fault(doing: &str, error: &Error) -> Fault {
    let code = error
        .code()
        .map(|code| format!(" [{}]", code.code()))
        .unwrap_or_default();
    Fault::retry(format!("PostgreSQL: cannot {doing}: {}{code}", explain(error)))
}

/// Whether PostgreSQL refuses a row for what is in it, by the classes of SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub(super) fn concerns_row(error: &Error) -> bool {
    error.code().is_some_and(|code| row_class(code.code()))
}

fn row_class(code: &str) -> bool {
    // Data exception, integrity constraint, check option of a view, RAISE in a trigger.
    const CLASSES: [&str; 4] = ["22", "23", "44", "P0"];
    // Too long for an index.
    code == "54000" || CLASSES.iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contents_of_a_row_concern_the_row() {
        for (code, row) in [
            ("22003", true),
            ("22P05", true),
            ("23505", true),
            ("23514", true),
            ("44000", true),
            ("54000", true),
            ("P0001", true),
            ("08006", false),
            ("25P02", false),
            ("40001", false),
            ("42501", false),
            ("42P01", false),
            ("53100", false),
            ("57P01", false),
            ("XX000", false),
        ] {
            assert_eq!(row_class(code), row, "{code}");
        }
    }
}
