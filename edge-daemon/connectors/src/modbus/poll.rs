//! One look at every point of every unit. What one point, or one unit, does not say silences no other.

use std::collections::{BTreeMap, VecDeque};

use bus_schema::data::Value;

use super::{
    frame::{Reply, Span},
    line::{AskError, Line, Manner},
    plan::{Request, halves, plan},
    point::Point,
};

/// Questions in a row without an answer after which a unit is taken to be away. Not one: some devices say nothing at all to
/// a question they do not like.
const SILENCES_MAX: u32 = 2;
/// Points that a status names; of more it says how many.
const NAMED_MAX: usize = 8;

/// What a point said: its value, or why there is none.
pub(super) type Reading = Result<Value, String>;

/// A unit and the questions for it.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub id: u8,
    /// Its points, by index.
    points: Vec<usize>,
    max_gap: u16,
    requests: Vec<Request>,
    /// It answered nothing the last time.
    is_away: bool,
    /// The status that was logged last.
    told: Option<String>,
}

/// A unit's readings.
#[derive(Debug)]
pub(super) struct Round {
    pub unit: u8,
    /// By point; `None`: this unit does not have it.
    pub readings: Vec<Option<Reading>>,
    /// It said something, if only no.
    pub was_heard: bool,
}

impl Unit {
    pub(super) fn new(id: u8, points: &[Point], max_gap: u16) -> Self {
        let own: Vec<usize> = (0..points.len())
            .filter(|point| points[*point].units.contains(&id))
            .collect();
        Self {
            id,
            requests: plan(&spans(points), own.clone(), max_gap),
            points: own,
            max_gap,
            is_away: false,
            told: None,
        }
    }

    /// Asks for every point. The error is the line's: nobody on it can be asked.
    pub(super) async fn poll(&mut self, line: &mut Line, manner: &Manner, points: &[Point]) -> Result<Round, String> {
        let spans = spans(points);
        let mut readings: Vec<Option<Reading>> = vec![None; points.len()];
        let mut waiting: VecDeque<Request> = std::mem::take(&mut self.requests).into();
        let (count, mut was_heard, mut silences) = (waiting.len(), false, 0);
        if self.is_away && count > 0 {
            // Not always with what it may never answer.
            waiting.rotate_left(1);
        }
        let silences_max = if self.is_away { 1 } else { SILENCES_MAX };
        let mut done = Vec::with_capacity(count);
        while let Some(mut request) = waiting.pop_front() {
            if silences >= silences_max && !was_heard {
                none(&mut readings, &request, no_answer(manner));
                done.push(request);
                continue;
            }
            let attempts = if request.was_silent { 1 } else { manner.attempts };
            let asked = line.ask(self.id, &request.span, attempts).await;
            request.was_silent = asked == Err(AskError::Silent);
            was_heard |= !request.was_silent;
            match asked {
                Ok(Reply::Data(data)) => {
                    for point in &request.points {
                        readings[*point] = Some(points[*point].decode(&data, &request.span));
                    }
                }
                Ok(Reply::Refused(code)) => {
                    if may_be_one_point(code)
                        && let Some([left, right]) = halves(&request, &spans)
                    {
                        waiting.push_front(right);
                        waiting.push_front(left);
                        continue;
                    }
                    none(&mut readings, &request, refusal(code));
                }
                Err(AskError::Silent) => {
                    silences += 1;
                    none(&mut readings, &request, no_answer(manner));
                }
                Err(AskError::Garbled(cause)) => none(&mut readings, &request, cause),
                Err(AskError::Lost(cause)) => return Err(cause),
            }
            done.push(request);
        }
        self.requests = match (was_heard, self.is_away) {
            // It may be another one, or mended.
            (true, true) => plan(&spans, self.points.clone(), self.max_gap),
            (true, false) => parted(done, &spans),
            (false, _) => done,
        };
        self.is_away = !was_heard;
        Ok(Round {
            unit: self.id,
            readings,
            was_heard,
        })
    }

    /// What to log of a status that differs from the last one.
    pub(super) fn news(&mut self, status: Option<&str>) -> bool {
        let is_new = self.told.as_deref() != status;
        self.told = status.map(ToString::to_string);
        is_new
    }
}

/// No value for any point of a question.
fn none(readings: &mut [Option<Reading>], request: &Request, cause: String) {
    for point in &request.points {
        readings[*point] = Some(Err(cause.clone()));
    }
}

/// Questions that a unit passed over in silence while it answered others are cut in two for the next time, as if it had
/// refused them: finding the point at fault costs a time-out each time.
fn parted(requests: Vec<Request>, spans: &[Span]) -> Vec<Request> {
    let mut parted = Vec::with_capacity(requests.len());
    for request in requests {
        match halves(&request, spans).filter(|_| request.was_silent) {
            Some(parts) => parted.extend(parts.map(|part| Request {
                was_silent: true,
                ..part
            })),
            None => parted.push(request),
        }
    }
    parted.sort_by_key(|request| request.span);
    parted
}

fn spans(points: &[Point]) -> Vec<Span> {
    points.iter().map(|point| point.span).collect()
}

/// Whether a refusal may be due to one of the points that were asked for. Devices say so in three ways.
fn may_be_one_point(code: u8) -> bool {
    matches!(code, 2..=4)
}

fn refusal(code: u8) -> String {
    let meaning = match code {
        1 => "it does not know this table (illegal function)",
        2 => "there is nothing at this address (illegal data address)",
        3 => "not so many values here (illegal data value)",
        4 => "device failure",
        5 => "it needs more time (acknowledge)",
        6 => "device busy",
        8 => "memory parity error",
        10 => "the gateway has no way to it (gateway path unavailable)",
        11 => "it does not answer its gateway (gateway target failed to respond)",
        _ => "unknown exception",
    };
    format!("refused with exception {code}: {meaning}")
}

fn no_answer(manner: &Manner) -> String {
    format!("no answer within {} ms", manner.timeout.as_millis())
}

/// What is wrong with a unit's points, for a person; `None` when nothing is.
pub(super) fn status(round: &Round, points: &[Point]) -> Option<String> {
    let mut by_cause: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let (mut own, mut bad) = (0, 0);
    for (point, reading) in points.iter().zip(&round.readings) {
        own += usize::from(reading.is_some());
        if let Some(Err(cause)) = reading {
            bad += 1;
            by_cause.entry(cause).or_default().push(&point.name);
        }
    }
    if bad == own
        && by_cause.len() == 1
        && let Some(cause) = by_cause.keys().next()
    {
        return Some((*cause).to_string());
    }
    let told = |(cause, names): (&str, Vec<&str>)| {
        let more = names.len().saturating_sub(NAMED_MAX);
        let listed = names[..names.len() - more].join(", ");
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{listed}{more}: {cause}")
    };
    let parts: Vec<String> = by_cause.into_iter().map(told).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
