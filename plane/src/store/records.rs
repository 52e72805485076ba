//! Decisions and last words in the store.

use std::{collections::HashMap, sync::Arc};

use bus_schema::{
    api::{LabelledToken, RevisionView, TokenView},
    decode, encode,
    id::{NodeId, TokenId, hash},
    member::{Certificate, Document, Roster, Signed},
    message::{Status, StreamReport},
    plan::{Descriptor, Plan},
};
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use super::{Store, StoreError, set};
use crate::domain::{
    Change,
    daemon::Catalog,
    enrol::Token,
    groups::Groups,
    labels::Labels,
    members::{FormerKeys, Member},
    plans::{Deployed, GIVEN_MAX},
    state::Words,
    workflows::Revision,
};

/// Most revisions in one answer: the newest.
const HISTORY_MAX: u32 = 500;
const ROSTER: &str = "roster";
const ROSTER_VERSION: &str = "roster_version";
/// The setting that holds the groups.
const GROUPS: &str = "groups";
const PLAN_FLOOR: &str = "plan_floor";

/// Everything that was decided and heard before the restart.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Decisions, in an order in which they can be applied.
    pub changes: Vec<Change>,
    /// Daemons' last words.
    pub words: Vec<Words>,
    /// The highest revision of every workflow there ever was.
    pub last_revisions: Vec<(String, u32)>,
    /// The roster, as signed; `None` in a new store.
    pub roster: Option<Signed<Roster>>,
}

fn damaged(table: &'static str) -> StoreError {
    StoreError::Damaged { table }
}

pub(super) fn blob<T: serde::de::DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    decode(bytes).ok_or(damaged(table))
}

fn id<T: std::str::FromStr>(table: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| damaged(table))
}

fn open<T: Document>(table: &'static str, bytes: &[u8], signer: &[u8; 32]) -> Result<(T, Signed<T>), StoreError> {
    let signed: Signed<T> = blob(table, bytes)?;
    let document = signed.open(signer).map_err(|_| damaged(table))?;
    Ok((document, signed))
}

impl Store {
    /// Makes changes durable, all together or not at all.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut bodies = HashMap::new();
        for change in changes {
            match change {
                Change::Catalog { node, hash, catalog } => {
                    write_catalog(&transaction, node, hash, catalog, &mut bodies)?;
                }
                change => write(&transaction, change)?,
            }
        }
        crash_point::at!(PlaneBeforeCommit);
        transaction.commit()?;
        crash_point::at!(PlaneAfterCommit);
        Ok(())
    }

    /// Stores daemons' last words, all together.
    pub fn save_words(&mut self, all: &[Words]) -> Result<(), StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for words in all {
            let sql = "INSERT OR REPLACE INTO reports (node, status, streams, heard_unix_ms) VALUES (?1, ?2, ?3, ?4)";
            let Words {
                node,
                status,
                streams,
                heard_unix_ms,
            } = words;
            let row = params![node.as_str(), encode(status), encode(streams), heard_unix_ms];
            transaction.prepare_cached(sql)?.execute(row)?;
        }
        Ok(transaction.commit()?)
    }

    /// Reads everything back. Certificates and plans are checked against the keys that signed them.
    pub fn load(&self, root: &[u8; 32], plane: &[u8; 32]) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded {
            changes: self.members(root)?,
            ..Loaded::default()
        };
        loaded.changes.extend(self.former_keys(root)?);
        if let Some(bytes) = self.setting(ROSTER)? {
            let (roster, signed) = open::<Roster>("settings", &bytes, root)?;
            loaded.roster = Some(signed.clone());
            loaded.changes.push(Change::Roster { roster, signed });
        }
        if let Some(version) = self.setting(ROSTER_VERSION)? {
            loaded.changes.push(Change::RosterVersion(blob("settings", &version)?));
        }
        loaded
            .changes
            .extend(self.revisions()?.into_iter().map(Change::Revision));
        if let Some(floor) = self.setting(PLAN_FLOOR)? {
            loaded.changes.push(Change::PlanFloor(blob("settings", &floor)?));
        }
        loaded.changes.extend(self.plans(plane)?);
        loaded.changes.extend(self.catalogs()?);
        loaded.changes.extend(self.labels()?);
        if let Some(bytes) = self.setting(GROUPS)? {
            let groups = Groups::of_texts(blob("settings", &bytes)?);
            loaded.changes.push(Change::Groups(groups));
        }
        loaded.changes.extend(self.rollouts()?);
        loaded.words = self.words()?;
        loaded.last_revisions = self.last_revisions()?;
        Ok(loaded)
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    fn members(&self, root: &[u8; 32]) -> Result<Vec<Change>, StoreError> {
        self.rows("SELECT certificate, host, enrolled_unix_ms FROM members", |row| {
            let (certificate, signed) = open::<Certificate>("members", row.get_ref(0)?.as_blob().unwrap_or(&[]), root)?;
            let host = blob("members", row.get_ref(1)?.as_blob().unwrap_or(&[]))?;
            Ok(Change::Member(Box::new(Member {
                certificate,
                signed,
                host,
                enrolled_unix_ms: row.get(2)?,
            })))
        })
    }

    fn former_keys(&self, root: &[u8; 32]) -> Result<Vec<Change>, StoreError> {
        self.rows("SELECT certificate FROM former_keys", |row| {
            let bytes = row.get_ref(0)?.as_blob().unwrap_or(&[]);
            let (certificate, signed) = open::<Certificate>("former_keys", bytes, root)?;
            Ok(Change::Former {
                node: certificate.node,
                former: Some(Box::new(FormerKeys { certificate, signed })),
            })
        })
    }

    fn revisions(&self) -> Result<Vec<Revision>, StoreError> {
        let sql = "SELECT r.workflow, r.number, r.text, r.made_by, r.at_unix_ms FROM revisions r \
                   JOIN workflows w ON w.name = r.workflow AND w.revision = r.number";
        self.rows(sql, |row| {
            Ok(Revision {
                workflow: row.get(0)?,
                number: row.get(1)?,
                text: row.get(2)?,
                by: row.get(3)?,
                at_unix_ms: row.get(4)?,
            })
        })
    }

    fn last_revisions(&self) -> Result<Vec<(String, u32)>, StoreError> {
        self.rows("SELECT workflow, max(number) FROM revisions GROUP BY workflow", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    fn plans(&self, plane: &[u8; 32]) -> Result<Vec<Change>, StoreError> {
        self.rows("SELECT plan, confirmed FROM plans", |row| {
            let (plan, signed) = open::<Plan>("plans", row.get_ref(0)?.as_blob().unwrap_or(&[]), plane)?;
            let Plan {
                daemon,
                version,
                workflows,
                ..
            } = plan;
            Ok(Change::Plan {
                confirmed: row.get(1)?,
                node: daemon,
                plan: Deployed {
                    version,
                    workflows,
                    signed,
                },
            })
        })
    }

    fn catalogs(&self) -> Result<Vec<Change>, StoreError> {
        let mut bodies: HashMap<Vec<u8>, Catalog> = HashMap::new();
        let sql = "SELECT c.node, c.hash, c.body, b.components FROM catalogs c JOIN catalog_bodies b ON b.id = c.body";
        self.rows(sql, |row| {
            let body: Vec<u8> = row.get(2)?;
            let catalog = match bodies.get(&body) {
                Some(catalog) => Arc::clone(catalog),
                None => {
                    let components: Vec<Descriptor> = blob("catalog_bodies", row.get_ref(3)?.as_blob().unwrap_or(&[]))?;
                    Arc::clone(bodies.entry(body).or_insert(components.into()))
                }
            };
            let node = id("catalogs", row.get_ref(0)?.as_str().unwrap_or(""))?;
            Ok(Change::Catalog {
                node,
                hash: row.get(1)?,
                catalog,
            })
        })
    }

    /// Words that cannot be read any more (of another version) are not worth failing for: daemons speak again.
    fn words(&self) -> Result<Vec<Words>, StoreError> {
        let read = self.rows("SELECT node, status, streams, heard_unix_ms FROM reports", |row| {
            let node: NodeId = id("reports", row.get_ref(0)?.as_str().unwrap_or(""))?;
            let status: Option<Status> = decode(row.get_ref(1)?.as_blob().unwrap_or(&[]));
            let streams: Option<Vec<StreamReport>> = decode(row.get_ref(2)?.as_blob().unwrap_or(&[]));
            let heard_unix_ms = row.get(3)?;
            Ok(status.zip(streams).map(|(status, streams)| Words {
                node,
                status,
                streams,
                heard_unix_ms,
            }))
        })?;
        Ok(read.into_iter().flatten().collect())
    }

    fn labels(&self) -> Result<Vec<Change>, StoreError> {
        self.rows("SELECT node, labels FROM labels", |row| {
            Ok(Change::Labels {
                node: id("labels", row.get_ref(0)?.as_str().unwrap_or(""))?,
                labels: blob("labels", row.get_ref(1)?.as_blob().unwrap_or(&[]))?,
            })
        })
    }

    /// All revisions of a workflow, the newest first.
    pub fn history(&self, workflow: &str) -> Result<Vec<RevisionView>, StoreError> {
        let sql = "SELECT r.number, r.made_by, r.at_unix_ms, w.revision IS NOT NULL, coalesce(y.reason, '') \
                   FROM revisions r LEFT JOIN workflows w ON w.name = r.workflow AND w.revision = r.number \
                   LEFT JOIN reasons y ON y.workflow = r.workflow AND y.number = r.number \
                   WHERE r.workflow = ?1 ORDER BY r.number DESC LIMIT ?2";
        let mut statement = self.db.prepare(sql)?;
        let view = |row: &Row<'_>| {
            Ok(RevisionView {
                number: row.get(0)?,
                by: row.get(1)?,
                at_unix_ms: row.get(2)?,
                is_current: row.get(3)?,
                reason: row.get(4)?,
            })
        };
        let views = statement.query_map(params![workflow, HISTORY_MAX], view)?;
        Ok(views.collect::<Result<_, _>>()?)
    }

    /// The text of one revision.
    pub fn text(&self, workflow: &str, revision: u32) -> Result<Option<String>, StoreError> {
        let sql = "SELECT text FROM revisions WHERE workflow = ?1 AND number = ?2";
        let text = self.db.query_row(sql, params![workflow, revision], |row| row.get(0));
        Ok(text.optional()?)
    }

    /// Tokens that can still be used.
    pub fn tokens(&self, now_unix_ms: i64) -> Result<Vec<TokenView>, StoreError> {
        let sql = "SELECT id, role, name, uses_left, expires_unix_ms FROM tokens WHERE uses_left > 0 ORDER BY expires_unix_ms";
        let all = self.rows(sql, |row| {
            Ok(TokenView {
                id: id("tokens", row.get_ref(0)?.as_str().unwrap_or(""))?,
                role: blob("tokens", row.get_ref(1)?.as_blob().unwrap_or(&[]))?,
                name: row.get(2)?,
                uses_left: row.get(3)?,
                expires_unix_ms: row.get(4)?,
            })
        })?;
        Ok(all
            .into_iter()
            .filter(|token| token.expires_unix_ms > now_unix_ms)
            .collect())
    }

    /// A token with who has used it.
    pub fn token(&self, token: &TokenId) -> Result<Option<Token>, StoreError> {
        let sql = "SELECT secret, role, name, uses_left, expires_unix_ms FROM tokens WHERE id = ?1";
        let found = self.db.query_row(sql, [token.as_str()], |row| {
            let role: Vec<u8> = row.get(1)?;
            Ok((row.get(0)?, role, row.get(2)?, row.get(3)?, row.get(4)?))
        });
        let Some((secret, role, name, uses_left, expires_unix_ms)) = found.optional()? else {
            return Ok(None);
        };
        let mut uses = self.db.prepare("SELECT node FROM token_uses WHERE token = ?1")?;
        let mut rows = uses.query([token.as_str()])?;
        let mut used_by = Vec::new();
        while let Some(row) = rows.next()? {
            used_by.push(id("token_uses", row.get_ref(0)?.as_str().unwrap_or(""))?);
        }
        let role = blob("tokens", &role)?;
        let labels = self.token_labels(token)?;
        Ok(Some(Token {
            id: *token,
            secret,
            role,
            name,
            uses_left,
            expires_unix_ms,
            used_by,
            labels,
        }))
    }

    /// What a token's daemons are labelled from the beginning.
    fn token_labels(&self, token: &TokenId) -> Result<Labels, StoreError> {
        let sql = "SELECT labels FROM token_labels WHERE token = ?1";
        let found: Option<Vec<u8>> = self.db.query_row(sql, [token.as_str()], |row| row.get(0)).optional()?;
        found.map_or_else(|| Ok(Labels::new()), |bytes| blob("token_labels", &bytes))
    }

    /// Tokens that can still be used, with their labels.
    pub fn labelled_tokens(&self, now_unix_ms: i64) -> Result<Vec<LabelledToken>, StoreError> {
        let labelled = |token: TokenView| {
            let labels = self.token_labels(&token.id)?;
            Ok(LabelledToken { token, labels })
        };
        self.tokens(now_unix_ms)?.into_iter().map(labelled).collect()
    }
}

fn write(db: &Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Token(token) => {
            let sql = "INSERT INTO tokens (id, secret, role, name, uses_left, expires_unix_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let Token {
                id,
                secret,
                role,
                name,
                uses_left,
                expires_unix_ms,
                labels,
                used_by: _,
            } = token;
            db.execute(
                sql,
                params![id.as_str(), secret, encode(role), name, uses_left, expires_unix_ms],
            )?;
            if !labels.is_empty() {
                let sql = "INSERT INTO token_labels (token, labels) VALUES (?1, ?2)";
                db.execute(sql, params![id.as_str(), encode(labels)])?;
            }
        }
        Change::TokenRevoked(token) => {
            db.execute("DELETE FROM tokens WHERE id = ?1", [token.as_str()])?;
        }
        Change::Labels { node, labels } => {
            let sql = "INSERT OR REPLACE INTO labels (node, labels) VALUES (?1, ?2)";
            db.execute(sql, params![node.as_str(), encode(labels)])?;
        }
        Change::Groups(groups) => super::set(db, GROUPS, &encode(&groups.texts()))?,
        Change::TokenUsed { token, node } => {
            db.execute(
                "UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?1",
                [token.as_str()],
            )?;
            db.execute(
                "INSERT INTO token_uses (token, node) VALUES (?1, ?2)",
                [token.as_str(), node.as_str()],
            )?;
        }
        Change::Member(member) => {
            let sql =
                "INSERT OR REPLACE INTO members (node, certificate, host, enrolled_unix_ms) VALUES (?1, ?2, ?3, ?4)";
            let node = member.certificate.node;
            let row = params![
                node.as_str(),
                encode(&member.signed),
                encode(&member.host),
                member.enrolled_unix_ms
            ];
            db.execute(sql, row)?;
        }
        Change::Former { node, former: None } => {
            db.execute("DELETE FROM former_keys WHERE node = ?1", [node.as_str()])?;
        }
        Change::Former {
            node,
            former: Some(former),
        } => {
            let sql = "INSERT OR REPLACE INTO former_keys (node, certificate) VALUES (?1, ?2)";
            db.execute(sql, params![node.as_str(), encode(&former.signed)])?;
        }
        Change::Roster { roster, signed } => {
            set(db, ROSTER, &encode(signed))?;
            for node in &roster.revoked {
                for table in ["members", "former_keys", "plans", "labels", "catalogs", "reports"] {
                    db.prepare_cached(&format!("DELETE FROM {table} WHERE node = ?1"))?
                        .execute([node.as_str()])?;
                }
            }
        }
        Change::RosterVersion(version) => set(db, ROSTER_VERSION, &encode(version))?,
        Change::Revision(revision) => {
            let sql = "INSERT INTO revisions (workflow, number, text, made_by, at_unix_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
            let Revision {
                workflow,
                number,
                text,
                by,
                at_unix_ms,
            } = revision;
            db.execute(sql, params![workflow, number, text, by, at_unix_ms])?;
            db.execute(
                "INSERT OR REPLACE INTO workflows (name, revision) VALUES (?1, ?2)",
                params![workflow, number],
            )?;
        }
        Change::Reason {
            workflow,
            number,
            reason,
        } => {
            let sql = "INSERT INTO reasons (workflow, number, reason) VALUES (?1, ?2, ?3)";
            db.execute(sql, params![workflow, number, reason])?;
        }
        Change::Reverted(revision) => {
            db.execute(
                "INSERT OR REPLACE INTO workflows (name, revision) VALUES (?1, ?2)",
                params![revision.workflow, revision.number],
            )?;
        }
        Change::RolloutBegun(_) | Change::RolloutKept(..) | Change::RolloutHead { .. } | Change::RolloutEnded(_) => {
            super::rollouts::write(db, change)?;
        }
        Change::Retired(name) => {
            db.execute("DELETE FROM workflows WHERE name = ?1", [name])?;
        }
        Change::Plan { node, plan, confirmed } => {
            let sql = "INSERT OR REPLACE INTO plans (node, version, plan, confirmed) VALUES (?1, ?2, ?3, ?4)";
            let version = i64::try_from(plan.version).map_err(|_| damaged("plans"))?;
            db.execute(sql, params![node.as_str(), version, encode(&plan.signed), confirmed])?;
            raise_floor(db, plan.version)?;
        }
        Change::PlansConfirmed(nodes) => {
            for node in nodes {
                db.execute("UPDATE plans SET confirmed = 1 WHERE node = ?1", [node.as_str()])?;
            }
        }
        Change::PlanFloor(version) => raise_floor(db, *version)?,
        Change::Audit(event) => super::audit::append(db, std::slice::from_ref(event), super::audit::ENTRIES_MAX)?,
        // With those of others, see `commit`.
        Change::Catalog { .. } => {}
    }
    Ok(())
}

/// `bodies`: those that were written in the same transaction, by where they are in memory, so that one that many daemons
/// carry is written once.
fn write_catalog(
    db: &Connection,
    node: &NodeId,
    announced: &[u8; 32],
    catalog: &Catalog,
    bodies: &mut HashMap<*const Descriptor, [u8; 32]>,
) -> Result<(), StoreError> {
    let body = match bodies.get(&catalog.as_ptr()) {
        Some(body) => *body,
        None => {
            let components = encode(&catalog.to_vec());
            let body = hash("mycelial stored catalog v1", &[&components]);
            let sql = "INSERT OR IGNORE INTO catalog_bodies (id, components) VALUES (?1, ?2)";
            db.prepare_cached(sql)?.execute(params![body, components])?;
            bodies.insert(catalog.as_ptr(), body);
            body
        }
    };
    let before: Option<[u8; 32]> = db
        .prepare_cached("SELECT body FROM catalogs WHERE node = ?1")?
        .query_row([node.as_str()], |row| row.get(0))
        .optional()?;
    let sql = "INSERT OR REPLACE INTO catalogs (node, hash, body) VALUES (?1, ?2, ?3)";
    db.prepare_cached(sql)?
        .execute(params![node.as_str(), announced, body])?;
    // Only who had another one can have been the last with it.
    if before.is_some_and(|before| before != body) {
        let sql = "DELETE FROM catalog_bodies WHERE id NOT IN (SELECT body FROM catalogs)";
        db.execute(sql, [])?;
    }
    Ok(())
}

/// The counter of plan versions outlives the plans themselves.
fn raise_floor(db: &Connection, version: u64) -> Result<(), StoreError> {
    let sql = "SELECT value FROM settings WHERE key = ?1";
    let floor: Option<Vec<u8>> = db.query_row(sql, [PLAN_FLOOR], |row| row.get(0)).optional()?;
    let floor: u64 = floor.and_then(|bytes| decode(&bytes)).unwrap_or(0);
    // What was never given takes no version, whoever wrote it.
    let floor = if floor > GIVEN_MAX { 0 } else { floor };
    if version > floor && version <= GIVEN_MAX {
        set(db, PLAN_FLOOR, &encode(&version))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        member::{Role, enrol_proof},
        message::{EnrolAsk, HostFacts},
        plan::ComponentRole,
    };

    use super::*;
    use crate::{
        domain::{
            Now, State,
            change::Signer,
            state::Enrolment,
            testing::{fleet, identity, node, part, status},
        },
        invite::{Wish, mint},
    };

    const PATH: &str = "plane.db";

    fn signer() -> Signer {
        Signer {
            root: identity(0),
            plane: identity(100),
        }
    }

    fn keys() -> ([u8; 32], [u8; 32]) {
        (signer().root.public().sign, signer().plane.public().sign)
    }

    fn token() -> Token {
        mint(
            Wish {
                role: Role::Daemon,
                name: None,
                uses: 2,
                ttl_s: 60,
                labels: [("site".to_string(), "berlin".to_string())].into(),
            },
            &[5; 32],
            1_000,
        )
        .unwrap()
    }

    fn ask(n: u8, name: &str) -> EnrolAsk {
        let keys = identity(n).public();
        let proof = enrol_proof(&token().secret, &keys, name);
        EnrolAsk {
            keys,
            name: name.into(),
            proof,
            host: HostFacts {
                hostname: "box".into(),
                ..HostFacts::default()
            },
        }
    }

    fn descriptor() -> Descriptor {
        Descriptor {
            role: ComponentRole::Source,
            name: "sqlite".into(),
            summary: "reads".into(),
            schema: "{}".into(),
            example: String::new(),
            inputs_max: 0,
            durable: true,
        }
    }

    /// Applies to the state what the store has taken.
    fn both(store: &mut Store, state: &mut State, changes: Vec<Change>) {
        store.commit(&changes).unwrap();
        state.apply(changes, true, Now::default());
    }

    fn enrol(store: &mut Store, state: &mut State, n: u8, name: &str) {
        let token = store.token(&token().id).unwrap();
        let Enrolment::New(_, changes) = state.on_candidate(token.as_ref(), &ask(n, name), &signer(), Now::default())
        else {
            panic!("{name} is welcome");
        };
        both(store, state, changes);
    }

    fn reload(store: &Store) -> State {
        let loaded = store.load(&keys().0, &keys().1).unwrap();
        let mut state = State::new(fleet(), node(100));
        for (name, number) in loaded.last_revisions {
            state.workflows.remember(&name, number);
        }
        state.apply(loaded.changes, false, Now::default());
        for words in loaded.words {
            state.remember(words.node, words.status, words.streams, words.heard_unix_ms);
        }
        state
    }

    fn revision(number: u32) -> Change {
        let text = format!("revision {number}");
        Change::Revision(Revision {
            workflow: "a".into(),
            number,
            text,
            by: "anna".into(),
            at_unix_ms: 9,
        })
    }

    #[test]
    fn everything_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PATH);
        let (mut store, mut state) = (Store::open(&path).unwrap(), State::new(fleet(), node(100)));
        both(&mut store, &mut state, vec![Change::Token(token())]);
        for (n, name) in [(1, "gw"), (2, "hub")] {
            enrol(&mut store, &mut state, n, name);
            state.on_status(
                node(n),
                status(1, 5, 0),
                Now {
                    mono_ms: 1,
                    unix_ms: 77,
                },
            );
            let changes = state.on_catalog(node(n), [0; 32], vec![descriptor()]);
            both(&mut store, &mut state, changes);
        }
        let id = part("a", 1).id;
        for (number, on) in [(1, vec![1, 2]), (2, vec![1])] {
            let parts = on.iter().map(|n| (node(*n), part("a", number))).collect();
            let mut changes = state.place(&id, parts, &signer()).unwrap();
            changes.push(revision(number));
            both(&mut store, &mut state, changes);
        }
        store
            .save_words(&state.take_unsaved(crate::domain::state::Share::All))
            .unwrap();
        drop(store);

        let store = Store::open(&path).unwrap();
        let again = reload(&store);
        assert_eq!(again.members.version(), 2);
        let gw = again.members.named("gw").unwrap();
        assert_eq!((gw.certificate.node, gw.host.hostname.as_str()), (node(1), "box"));
        assert_eq!(
            again.workflows.get("a").map(|revision| revision.text.as_str()),
            Some("revision 2")
        );
        assert_eq!(
            (again.plans.of(&node(1)), again.plans.of(&node(2))),
            (state.plans.of(&node(1)), state.plans.of(&node(2)))
        );
        assert_eq!(again.plans.next_version(), 3);
        assert_eq!(again.plans.is_confirmed(&node(1)), Some(false));
        let mut store = store;
        store.commit(&[Change::PlansConfirmed(vec![node(1)])]).unwrap();
        let confirmed = [1, 2].map(|n| reload(&store).plans.is_confirmed(&node(n)));
        assert_eq!(confirmed, [Some(true), Some(false)]);
        let [a, b] = [1, 2].map(|n| again.daemon(&node(n)).unwrap().catalog().unwrap().as_ptr());
        assert_eq!(a, b, "the same components are the same memory");
        let token = store.token(&token().id).unwrap().unwrap();
        assert_eq!((token.uses_left, token.used_by.len()), (0, 2));
        let berlin = [("site".to_string(), "berlin".to_string())].into();
        assert_eq!((&token.labels, again.labels(&node(1))), (&berlin, &berlin));
    }

    #[test]
    fn words_and_catalogs_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, mut state) = (
            Store::open(&dir.path().join(PATH)).unwrap(),
            State::new(fleet(), node(100)),
        );
        both(&mut store, &mut state, vec![Change::Token(token())]);
        enrol(&mut store, &mut state, 1, "gw");
        state.on_status(
            node(1),
            status(4, 5, 31),
            Now {
                mono_ms: 1,
                unix_ms: 77,
            },
        );
        let changes = state.on_catalog(node(1), [0; 32], vec![descriptor()]);
        both(&mut store, &mut state, changes);
        store
            .save_words(&state.take_unsaved(crate::domain::state::Share::All))
            .unwrap();
        let again = reload(&store);
        let daemon = again.daemon(&node(1)).unwrap();
        assert_eq!(daemon.last().map(|last| last.boot), Some(4));
        assert_eq!(daemon.catalog().map(|catalog| catalog.len()), Some(1));
        assert_eq!(daemon.heard_unix_ms(), Some(77));
        assert_eq!(
            again.plans.next_version(),
            32,
            "a version a daemon has spoken of is taken"
        );
    }

    #[test]
    fn why_stands_with_the_revision() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join(PATH)).unwrap();
        let why = |number| Change::Reason {
            workflow: "a".into(),
            number,
            reason: "the shop moves".into(),
        };
        store.commit(&[revision(1)]).unwrap();
        store.commit(&[revision(2), why(2)]).unwrap();
        let history = store.history("a").unwrap();
        let shown: Vec<_> = history.iter().map(|view| (view.number, view.reason.as_str())).collect();
        assert_eq!(shown, [(2, "the shop moves"), (1, "")]);
        assert!(store.commit(&[why(2)]).is_err(), "a reason is never changed");
        assert!(
            store.commit(&[why(3)]).is_err(),
            "nor is there one of a revision that is not"
        );
    }

    #[test]
    fn versions_and_revisions_only_go_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PATH);
        let mut store = Store::open(&path).unwrap();
        store
            .commit(&[Change::PlanFloor(7), revision(1), Change::PlanFloor(3)])
            .unwrap();
        store.commit(&[Change::Retired("a".into())]).unwrap();
        drop(store);
        let mut store = Store::open(&path).unwrap();
        let again = reload(&store);
        assert_eq!((again.plans.next_version(), again.workflows.next_number("a")), (8, 2));
        assert!(again.workflows.is_empty());
        // A revision is never changed, and of a decision nothing is kept unless all is.
        assert!(store.commit(&[Change::PlanFloor(20), revision(1)]).is_err());
        assert_eq!(reload(&store).plans.next_version(), 8);
        // A number that a plane can never have given is no ground to stand on.
        for damaged in [u64::MAX, i64::MAX as u64] {
            store.commit(&[Change::PlanFloor(damaged)]).unwrap();
            assert_eq!(reload(&store).plans.next_version(), 8);
            set(&store.db, PLAN_FLOOR, &encode(&damaged)).unwrap();
            assert_eq!(reload(&store).plans.next_version(), 1);
            store.commit(&[Change::PlanFloor(7)]).unwrap();
            assert_eq!(reload(&store).plans.next_version(), 8);
        }
    }

    #[test]
    fn what_others_signed_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, mut state) = (
            Store::open(&dir.path().join(PATH)).unwrap(),
            State::new(fleet(), node(100)),
        );
        both(&mut store, &mut state, vec![Change::Token(token())]);
        enrol(&mut store, &mut state, 1, "gw");
        let other = identity(50).public().sign;
        assert!(matches!(
            store.load(&other, &keys().1),
            Err(StoreError::Damaged { table: "members" })
        ));
    }
}
