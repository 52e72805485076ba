//! What an error of MySQL or MariaDB means: about one row, or about the work as a whole.

use std::error::Error as _;

use flow::Fault;
use mysql_async::{Error, ServerError};

/// Errors about the contents of a row whose SQLSTATE says nothing
/// (<https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>,
/// <https://mariadb.com/kb/en/mariadb-error-code-reference/>).
const ROW_ERRORS: [u16; 9] = [
    1118, // a row too large for a page
    1265, // data truncated
    1364, // no value for a column without default
    1366, // incorrect value
    1411, // incorrect value for a function
    1416, // no geometry
    1526, // no partition for the value
    3819, // a check constraint (MySQL)
    4025, // a check constraint (MariaDB)
];
/// Warnings that say a value was changed on its way in: out of range, truncated, incorrect, too long.
const CHANGED: [u16; 5] = [1264, 1265, 1292, 1366, 1406];

/// A failure that concerns the work as a whole. `doing` completes "cannot …".
///
/// All of them are worth trying again: connections come back, deadlocks and timeouts pass, and a missing right or table is
/// mended on the server, where nobody can know that a gateway is waiting for it.
pub(super) fn fault(doing: &str, error: &Error) -> Fault {
    Fault::retry(format!("MySQL: cannot {doing}: {}", explain(error)))
}

/// An error with its causes and code.
pub(super) fn explain(error: &Error) -> String {
    if let Error::Server(error) = error {
        return format!("{} [{}]", error.message, error.code);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

/// The server's refusal of a row for what is in it, if the error is one.
pub(super) fn row_refusal(error: &Error) -> Option<String> {
    match error {
        Error::Server(ServerError { code, state, message }) if concerns_row(*code, state) => {
            Some(format!("{message} [{code}]"))
        }
        _ => None,
    }
}

fn concerns_row(code: u16, state: &str) -> bool {
    // Data exception, integrity constraint, check option of a view, SIGNAL in a trigger.
    const CLASSES: [&str; 4] = ["22", "23", "44", "45"];
    ROW_ERRORS.contains(&code) || CLASSES.iter().any(|class| state.starts_with(class))
}

/// Whether a warning says that a value was changed.
pub(super) fn says_changed(code: u16) -> bool {
    CHANGED.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contents_of_a_row_concern_the_row() {
        for (code, state, row) in [
            (1062, "23000", true),
            (1048, "23000", true),
            (1264, "22003", true),
            (1366, "HY000", true),
            (1366, "22007", true),
            (1406, "22001", true),
            (1452, "23000", true),
            (1644, "45000", true),
            (3140, "22032", true),
            (4025, "23000", true),
            (1054, "42S22", false),
            (1114, "HY000", false),
            (1142, "42000", false),
            (1146, "42S02", false),
            (1205, "HY000", false),
            (1213, "40001", false),
            (1290, "HY000", false),
            (1927, "70100", false),
        ] {
            assert_eq!(concerns_row(code, state), row, "{code} {state}");
        }
    }
}
