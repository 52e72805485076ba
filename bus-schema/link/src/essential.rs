//! Tasks without which a process would go on and do nothing. Where one of them panics, the process ends, so that whoever
//! watches over it starts it again: everything here is made to be killed at any moment, and nothing is made to limp.

use std::{panic::AssertUnwindSafe, process};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// Exit code of a process that lost a part of itself: `EX_SOFTWARE` of sysexits.h.
pub const EXIT_BROKEN: i32 = 70;

/// Starts such a task.
pub fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(watched(name, task))
}

/// Such a task, to be run by somebody else.
pub async fn watched(name: &'static str, task: impl Future<Output = ()>) {
    // The panic itself has been printed by now.
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!(
            part = name,
            "a part that cannot be missed panicked: this process ends, to be started again"
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "as good as being killed, which is what the rest is made for"
        )]
        process::exit(EXIT_BROKEN);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn an_end_is_no_panic() {
        spawn("part", async {}).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "run by `a_panic_ends_the_process`"]
    async fn panicking_child() {
        let _runs_into = spawn("part", async { panic!("on purpose") });
        std::future::pending::<()>().await;
    }

    #[test]
    fn a_panic_ends_the_process() {
        let exe = std::env::current_exe().unwrap();
        let child = Command::new(exe)
            .args(["--exact", "essential::tests::panicking_child", "--ignored"])
            .output()
            .unwrap();
        assert_eq!(child.status.code(), Some(EXIT_BROKEN));
    }
}
