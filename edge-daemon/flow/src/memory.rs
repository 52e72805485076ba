//! What the stages of a pipe remember, kept with the position: a stored position is the source's bookmark and, where a stage
//! remembers something, the states of the stages as of the same batch. Performs no I/O.
//!
//! So whoever makes a position durable with the records makes the states durable with them, in the same transaction or
//! group, and whoever goes back to an older mark goes back to its states.

use serde::{Deserialize, Serialize};

use crate::{Fault, pipe::Stage, source::Position};

/// Most bytes that the states of a pipe's stages may take together. They are stored with every batch.
pub const STATES_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of states that go out with every frame of a stream, for a producer that loses its buffer.
const TOLD_BYTES_MAX: usize = 2 * 1024;
/// How a position with states begins. No source's bookmark does.
const MARK: [u8; 16] = *b"\xffmycelial-state1";
/// How the position of a part of a read begins, before that of what was read before.
const PART_MARK: [u8; 16] = *b"\xffmycelial-part-1";
/// Bytes of the bookmark's length, after the mark.
const LENGTH_BYTES: usize = 4;

/// What stands behind the bookmark. The form is on disks: a later one gets another mark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The states were left out: they were too large to be told.
    pub(crate) is_cut: bool,
    pub(crate) states: Vec<State>,
}

/// One stage's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The way to the stage.
    path: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

impl Position {
    /// The source's own bookmark in it.
    pub fn bookmark(&self) -> &[u8] {
        self.parts().map_or(self.whole(), |(bookmark, _)| bookmark)
    }

    /// Whether the delivery is a part of what came of one read, and not the last one: nothing can go on after it. What follows
    /// is in the same call of [`crate::Sink::write`], and becomes durable with it or not at all.
    pub fn is_part(&self) -> bool {
        self.as_bytes().starts_with(&PART_MARK)
    }

    /// Of a part of a read that comes after this.
    pub(crate) fn before_part(&self) -> Self {
        Self::new([&PART_MARK, self.as_bytes()].concat())
    }

    /// Where a read begins again of which this is a part; else the position itself.
    fn whole(&self) -> &[u8] {
        let bytes = self.as_bytes();
        bytes.strip_prefix(&PART_MARK).unwrap_or(bytes)
    }

    /// The bytes that go out with frames, for a producer that loses its buffer: without states that are large.
    pub fn told(&self) -> Vec<u8> {
        match self.parts() {
            Some((bookmark, kept)) if kept.len() > TOLD_BYTES_MAX => {
                let cut = Kept {
                    is_cut: true,
                    states: Vec::new(),
                };
                join(bookmark, &cut).as_bytes().to_vec()
            }
            _ => self.whole().to_vec(),
        }
    }

    /// The position that the source knows.
    pub(crate) fn of_source(&self) -> Self {
        Self::new(self.bookmark())
    }

    /// What the stages remembered at it.
    pub(crate) fn kept(&self) -> Result<Kept, Fault> {
        let Some((_, kept)) = self.parts() else {
            return Ok(Kept::default());
        };
        bus_schema::decode(kept).ok_or_else(|| {
            Fault::stop(
                "what transforms remembered was stored in a form that this version does not know: update myceliald",
            )
        })
    }

    fn parts(&self) -> Option<(&[u8], &[u8])> {
        let rest = self.whole().strip_prefix(&MARK)?;
        let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        rest.split_at_checked(u32::from_be_bytes(*length) as usize)
    }
}

fn join(bookmark: &[u8], kept: &Kept) -> Position {
    let states = bus_schema::encode(kept);
    let mut bytes = Vec::with_capacity(MARK.len() + LENGTH_BYTES + bookmark.len() + states.len());
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&(bookmark.len() as u32).to_be_bytes());
    bytes.extend_from_slice(bookmark);
    bytes.extend_from_slice(&states);
    Position::new(bytes)
}

/// What the stages of a pipe remembered after the last batch that went in.
pub(crate) struct Memory {
    kept: Kept,
    /// The way to each stage.
    paths: Vec<String>,
    /// How many stages remember something.
    users: usize,
}

impl Memory {
    /// As it was at a mark. What belongs to no stage any more is given up.
    pub(crate) fn new(stages: &[Stage], paths: Vec<String>, kept: Kept) -> Self {
        let users = stages.iter().filter(|stage| stage.transform.remembers()).count();
        if kept.is_cut {
            tracing::error!("what transforms remembered was lost with the buffer: they begin anew");
        }
        let memory = Self { kept, paths, users };
        for state in &memory.kept.states {
            let is_known = (0..stages.len())
                .any(|index| stages[index].transform.remembers() && memory.state(index) == Some(&state.bytes));
            if !is_known {
                let path = state.path.as_str();
                tracing::warn!(
                    path,
                    "what this transform remembered is given up: it is not there any more"
                );
            }
        }
        memory
    }

    /// Whether a stage remembers anything.
    pub(crate) fn is_used(&self) -> bool {
        self.users > 0
    }

    /// Brings every stage to where it was after the last batch that went in.
    pub(crate) fn recall(&self, stages: &mut [Stage]) -> Result<(), Fault> {
        for (index, stage) in stages.iter_mut().enumerate() {
            if stage.transform.remembers() {
                let state = self.state(index).map(Vec::as_slice);
                let restored = stage.transform.restore(state, STATES_BYTES_MAX / self.users.max(1));
                restored.map_err(|fault| stage_fault(&stage.node, fault))?;
            } else {
                stage.transform.forget();
            }
        }
        Ok(())
    }

    /// The position to be stored after a batch: the source's, with what the stages remember now.
    pub(crate) fn keep(&mut self, stages: &[Stage], position: Position) -> Position {
        if !self.is_used() {
            return position;
        }
        let users = stages
            .iter()
            .enumerate()
            .filter(|(_, stage)| stage.transform.remembers());
        let states = users.map(|(index, stage)| State {
            path: self.paths[index].clone(),
            bytes: stage.transform.state(),
        });
        self.kept = Kept {
            is_cut: false,
            states: states.collect(),
        };
        join(position.as_bytes(), &self.kept)
    }

    /// The position of parts of a read that comes after this one of the source.
    pub(crate) fn before_part(&self, position: &Position) -> Position {
        if self.is_used() {
            join(position.as_bytes(), &self.kept).before_part()
        } else {
            position.before_part()
        }
    }

    /// A stage's state: by the way there, or, when the ways have changed, by its name if there is only one of it.
    fn state(&self, index: usize) -> Option<&Vec<u8>> {
        let path = &self.paths[index];
        let states = &self.kept.states;
        if let Some(state) = states.iter().find(|state| state.path == *path) {
            return Some(&state.bytes);
        }
        let node = |path: &str| path.rsplit("->").next().map(str::to_string);
        let mut named = states.iter().filter(|state| node(&state.path) == node(path));
        let is_only = self.paths.iter().filter(|other| node(other) == node(path)).count() == 1;
        match (named.next(), named.next()) {
            (Some(state), None) if is_only => Some(&state.bytes),
            _ => None,
        }
    }
}

/// A stage's fault, with its name.
pub(crate) fn stage_fault(node: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Stop { cause } => Fault::stop(format!("{node}: {cause}")),
        Fault::Moved { cause } => Fault::Moved {
            cause: format!("{node}: {cause}"),
        },
        Fault::Retry { cause, after } => Fault::Retry {
            cause: format!("{node}: {cause}"),
            after,
        },
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::Batch;

    use super::*;
    use crate::transform::{Transform, Transformed};

    /// Remembers one byte.
    struct Byte(u8);

    impl Transform for Byte {
        fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
            Ok(batch.into())
        }

        fn remembers(&self) -> bool {
            true
        }

        fn state(&self) -> Vec<u8> {
            vec![self.0]
        }

        fn restore(&mut self, state: Option<&[u8]>, _: usize) -> Result<(), Fault> {
            self.0 = state.map_or(0, |state| state[0]);
            Ok(())
        }
    }

    fn stages(names: &[(&str, u8)]) -> Vec<Stage> {
        let stage = |(name, byte): &(&str, u8)| Stage {
            after: None,
            node: (*name).to_string(),
            transform: Box::new(Byte(*byte)),
        };
        names.iter().map(stage).collect()
    }

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_string()).collect()
    }

    fn stored(bookmark: &[u8]) -> Position {
        let stages = stages(&[("a", 7), ("b", 9)]);
        let mut memory = Memory::new(&stages, paths(&["s->a", "s->x->b"]), Kept::default());
        memory.keep(&stages, Position::new(bookmark))
    }

    #[test]
    fn states_come_back_with_the_position() {
        let position = stored(b"here");
        assert_eq!(position.bookmark(), b"here");
        assert_eq!(position.of_source(), Position::new(*b"here"));
        assert_eq!(position.told(), position.as_bytes(), "small states are told");
        // The way there, the states, and what each stage then remembers.
        for (ways, expected) in [
            (["s->a", "s->x->b"], [7, 9]),
            (["s->x->b", "s->a"], [9, 7]),
            // The way has changed, the name has not.
            (["s->y->a", "s->b"], [7, 9]),
            (["s->c", "s->b"], [0, 9]),
            // Two of one name: which of them it was cannot be known.
            (["s->y->a", "s->z->a"], [0, 0]),
        ] {
            let mut stages = stages(&[("", 1), ("", 1)]);
            let memory = Memory::new(&stages, paths(&ways), position.kept().unwrap());
            memory.recall(&mut stages).unwrap();
            let found: Vec<u8> = stages.iter().map(|stage| stage.transform.state()[0]).collect();
            assert_eq!(found, expected, "{ways:?}");
        }
    }

    #[test]
    fn without_memory_a_position_is_as_the_source_gave_it() {
        let mut memory = Memory::new(&[], Vec::new(), Kept::default());
        let position = Position::new(*b"\xffmycelial");
        assert_eq!(memory.keep(&[], position.clone()), position);
        assert_eq!(
            (position.bookmark(), position.kept().unwrap()),
            (position.as_bytes(), Kept::default())
        );
        assert_eq!(stored(b"").bookmark(), b"");
        let damaged = Position::new([&MARK[..], &[0, 0, 0, 1, 7, 9]].concat());
        assert!(damaged.kept().is_err());
    }

    #[test]
    fn a_part_goes_back_to_what_was_before() {
        for before in [Position::default(), Position::new(*b"there"), stored(b"there")] {
            let part = before.before_part();
            assert!(part.is_part() && !before.is_part());
            assert_eq!(part.bookmark(), before.bookmark());
            assert_eq!(part.told(), before.told());
            assert_eq!(part.kept().unwrap(), before.kept().unwrap());
            assert_eq!(part.of_source(), before.of_source());
        }
    }

    #[test]
    fn large_states_are_not_told() {
        let kept = Kept {
            is_cut: false,
            states: vec![State {
                path: "s->a".into(),
                bytes: vec![1; TOLD_BYTES_MAX],
            }],
        };
        let told = Position::new(join(b"here", &kept).told());
        assert_eq!(told.bookmark(), b"here");
        assert_eq!(
            told.kept().unwrap(),
            Kept {
                is_cut: true,
                states: Vec::new()
            }
        );
    }
}
