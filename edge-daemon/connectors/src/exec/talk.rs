//! Asking a program and hearing its answers, line by line, within limits of time and size. Knows no record.

use std::{ops::Range, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    time::timeout,
};

use super::child::{Child, Life};

/// Bytes of answers read at once.
const READ_BYTES: usize = 16 * 1024;

/// What an answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long the next one may take.
    pub(crate) answer_max: Duration,
    /// The longest one.
    pub(crate) line_bytes_max: usize,
}

/// A program that is asked and answers.
pub(crate) struct Talk {
    input: ChildStdin,
    ears: Ears,
    life: Life,
}

/// The output of a program, as lines.
struct Ears {
    output: ChildStdout,
    bytes: Vec<u8>,
    /// How many of these have been heard.
    heard: usize,
}

impl Ears {
    /// The next line without its end. May be dropped and called again.
    async fn line(&mut self, bytes_max: usize) -> Result<&[u8], String> {
        let mut seen = 0;
        loop {
            if let Some(line) = self.whole_line(seen) {
                return Ok(&self.bytes[line]);
            }
            seen = self.bytes.len() - self.heard;
            if seen > bytes_max {
                return Err(format!("its answer has more than {bytes_max} bytes"));
            }
            self.bytes.drain(..self.heard);
            self.heard = 0;
            self.bytes.reserve(READ_BYTES);
            match self.output.read_buf(&mut self.bytes).await {
                Ok(0) => return Err("it closed its output before it answered".to_string()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Takes a line that is there, of which the first `seen` bytes hold no end.
    fn whole_line(&mut self, seen: usize) -> Option<Range<usize>> {
        let start = self.heard;
        let end = start + seen + memchr::memchr(b'\n', &self.bytes[start + seen..])?;
        self.heard = end + 1;
        Some(start..end)
    }
}

impl Talk {
    /// `None`: the program was started without input.
    pub(crate) fn new(child: Child) -> Option<Self> {
        Some(Self {
            input: child.input?,
            ears: Ears {
                output: child.output,
                bytes: Vec::new(),
                heard: 0,
            },
            life: child.life,
        })
    }

    /// Sends `text` and gives the next `answers` lines to `hear`. They are heard while the text is on its way: a program may
    /// answer before it has read everything. Dropped or failed in the middle, the talk makes no sense any more.
    pub(crate) async fn ask(
        &mut self,
        text: &[u8],
        answers: usize,
        patience: Patience,
        hear: &mut (dyn FnMut(&[u8]) -> Result<(), String> + Send),
    ) -> Result<(), String> {
        let Self { input, ears, life } = self;
        let send = async {
            let written = input.write_all(text).await;
            written.map_err(|error| format!("it does not take records: {error}"))
        };
        let receive = async {
            for _ in 0..answers {
                let line = timeout(patience.answer_max, ears.line(patience.line_bytes_max)).await;
                hear(line.map_err(|_| format!("no answer for {} seconds", patience.answer_max.as_secs_f32()))??)?;
            }
            Ok(())
        };
        let done = exchange(send, receive, patience.answer_max).await;
        match done {
            Ok(()) => Ok(()),
            Err(cause) => Err(life.ending(cause).await),
        }
    }

    /// The next line, whenever it comes. May be dropped and called again.
    pub(crate) async fn hear(&mut self, bytes_max: usize) -> Result<&[u8], String> {
        self.ears.line(bytes_max).await
    }

    /// A line that has come already.
    pub(crate) fn heard(&mut self) -> Option<&[u8]> {
        let line = self.ears.whole_line(0)?;
        Some(&self.ears.bytes[line])
    }

    /// Sends a short text to which there is no single answer.
    pub(crate) async fn say(&mut self, text: &[u8]) -> Result<(), String> {
        let written = self.input.write_all(text).await;
        written.map_err(|error| format!("it does not listen: {error}"))
    }

    /// A cause with how the program has ended, if it has.
    pub(crate) async fn ending(&mut self, cause: String) -> String {
        self.life.ending(cause).await
    }

    /// Waits whether it ends before anything is asked of it, and says how.
    pub(crate) async fn ends_within(&mut self, wait: Duration) -> Option<String> {
        match timeout(wait, self.life.ended()).await {
            Ok(_) => Some(
                self.life
                    .ending("it ends before it is given a record".to_string())
                    .await,
            ),
            Err(_) => None,
        }
    }

    /// Asks it to end, then makes it.
    pub(crate) async fn stop(self) {
        let Self { input, ears, life } = self;
        let child = Child {
            input: Some(input),
            output: ears.output,
            life,
        };
        child.stop().await;
    }
}

/// Both at once. What the program says before it ends tells more than that its input is closed, so that only counts when
/// it has said everything.
async fn exchange(
    send: impl Future<Output = Result<(), String>>,
    receive: impl Future<Output = Result<(), String>>,
    send_max: Duration,
) -> Result<(), String> {
    tokio::pin!(send, receive);
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            heard = &mut receive => {
                heard?;
                break;
            }
            done = &mut send, if sent.is_none() => sent = Some(done),
        }
    }
    match sent {
        Some(sent) => sent,
        None => {
            let sent = timeout(send_max, send).await;
            sent.unwrap_or_else(|_| Err("it answered and reads no more".to_string()))
        }
    }
}
