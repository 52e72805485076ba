//! A member's keys on disk while they change. What flips is one file, the membership: before, the new keys are only offered; after,
//! they are the member's, whatever a crash interrupts. Old keys stay until nothing is left that needs them.

use bus_schema::key::{Identity, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::home::{Home, HomeError, KEYS, Membership, copy_of, identity_of};

/// Keys that are offered to the plane.
const NEXT: &str = "keys-next";
/// Keys that were the member's before.
const FORMER: &str = "keys-former";
/// Most former keys that are kept.
const FORMER_MAX: usize = 4;

/// Keys that were a member's before the ones it has.
#[derive(Debug, Clone)]
pub struct Former {
    /// Their generation.
    pub key_epoch: u32,
    /// The keys.
    pub identity: Identity,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key_epoch: u32,
    /// Both halves, see [`Identity::to_bytes`].
    keys: [SecretKey; 2],
}

impl Kept {
    fn of(former: &Former) -> Self {
        let bytes = former.identity.to_bytes();
        let half = |at: usize| {
            let mut half = [0; 32];
            half.copy_from_slice(&bytes[at..at + 32]);
            SecretKey::new(half)
        };
        Self {
            key_epoch: former.key_epoch,
            keys: [half(0), half(32)],
        }
    }

    fn former(&self) -> Former {
        let mut bytes = Zeroizing::new([0; Identity::BYTES]);
        bytes[..32].copy_from_slice(self.keys[0].expose());
        bytes[32..].copy_from_slice(self.keys[1].expose());
        Former {
            key_epoch: self.key_epoch,
            identity: Identity::from_bytes(&bytes),
        }
    }
}

impl Home {
    /// Keys to offer to the plane; made on first use.
    pub fn next_keys(&self) -> Result<Identity, HomeError> {
        if let Some(next) = self.offered_keys()? {
            return Ok(next);
        }
        let mut bytes = Zeroizing::new([0; Identity::BYTES]);
        getrandom::fill(&mut *bytes).map_err(HomeError::Random)?;
        self.store_twice(NEXT, &*bytes)?;
        crash_point::at!(RotateAfterOffer);
        Ok(Identity::from_bytes(&bytes))
    }

    /// The keys that are offered, if there are any.
    pub fn offered_keys(&self) -> Result<Option<Identity>, HomeError> {
        let loaded = self.load_either(NEXT)?.map(Zeroizing::new);
        loaded
            .map(|bytes| identity_of(&bytes, || self.dir().join(NEXT)))
            .transpose()
    }

    /// Gives the offer up.
    pub fn drop_next_keys(&self) -> Result<(), HomeError> {
        self.remove(NEXT)?;
        self.remove(&copy_of(NEXT))
    }

    /// Keys that were this member's before, the newest first.
    pub fn former_keys(&self) -> Result<Vec<Former>, HomeError> {
        let Some(bytes) = self.load_either(FORMER)?.map(Zeroizing::new) else {
            return Ok(Vec::new());
        };
        let kept: Vec<Kept> = bus_schema::decode(&bytes).ok_or_else(|| HomeError::Damaged {
            path: self.dir().join(FORMER).display().to_string(),
            cause: "unreadable",
        })?;
        Ok(kept.iter().map(Kept::former).collect())
    }

    /// Takes the offered keys into use: `membership` has a certificate of them. Its end is [`Home::finish_rotation`].
    pub fn take_next_keys(&self, membership: &Membership) -> Result<(), HomeError> {
        // From here on it is done: the next start finishes it.
        let before = self.membership()?;
        self.keep_former(before.as_ref())?;
        crash_point::at!(RotateAfterFormer);
        self.save_membership(membership)?;
        crash_point::at!(RotateAfterFlip);
        self.finish_rotation()
    }

    /// What was begun and not ended before: at each start, before keys are used.
    pub fn finish_rotation(&self) -> Result<(), HomeError> {
        let (Some(next), Some(membership)) = (self.offered_keys()?, self.membership()?) else {
            return Ok(());
        };
        let certificate = membership.certificate.open(&membership.root);
        if certificate.is_ok_and(|certificate| certificate.keys == next.public()) {
            self.store_twice(KEYS, &*next.to_bytes())?;
            crash_point::at!(RotateAfterKeys);
            self.drop_next_keys()?;
        }
        Ok(())
    }

    /// Keeps the keys as they are under their generation, as former ones. Before they are that: it does no harm.
    fn keep_former(&self, membership: Option<&Membership>) -> Result<(), HomeError> {
        let certificate = membership.and_then(|membership| membership.certificate.open(&membership.root).ok());
        let Some(certificate) = certificate else { return Ok(()) };
        let keys = self.identity()?;
        // Those of another generation, after an attempt that a full disk ended: kept already.
        if certificate.keys != keys.public() {
            return Ok(());
        }
        let mut former = self.former_keys()?;
        former.retain(|one| one.key_epoch != certificate.key_epoch);
        former.insert(
            0,
            Former {
                key_epoch: certificate.key_epoch,
                identity: keys,
            },
        );
        former.truncate(FORMER_MAX);
        let kept: Vec<Kept> = former.iter().map(Kept::of).collect();
        self.store_twice(FORMER, &Zeroizing::new(bus_schema::encode(&kept)))
    }

    /// Nothing needs the former keys any more.
    pub fn forget_former_keys(&self) -> Result<(), HomeError> {
        crash_point::at!(RotateBeforeForget);
        self.remove(FORMER)?;
        crash_point::at!(RotateAmidForget);
        self.remove(&copy_of(FORMER))
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        id::FleetId,
        key::SecretKey,
        member::{Certificate, GroupKey, Role, Roster, Signed},
        subject::{self, Lane},
    };

    use super::*;
    use crate::secure::Secure;

    fn keys(n: u8) -> Identity {
        Identity::from_bytes(&[n; 64])
    }

    /// A member whose first keys were `first`, by the keys it has now.
    fn certificate(name: &str, first: &Identity, keys: &Identity, key_epoch: u32) -> Certificate {
        Certificate {
            fleet: FleetId::of_root(&self::keys(1).public().sign),
            node: first.public().node_id(),
            name: name.into(),
            role: Role::Daemon,
            keys: keys.public(),
            key_epoch,
        }
    }

    fn membership(mine: &Certificate, members: &[&Certificate], version: u64) -> Membership {
        let (root, fleet) = (keys(1), mine.fleet);
        let roster = Roster {
            fleet,
            version,
            members: members.iter().map(|member| (*member).clone()).collect(),
            revoked: Vec::new(),
        };
        Membership {
            fleet,
            root: root.public().sign,
            plane: keys(9).public().node_id(),
            certificate: Signed::new(mine, &root),
            roster: Signed::new(&roster, &root),
            group: GroupKey {
                key_epoch: 1,
                key: SecretKey::new([3; 32]),
            },
            login: None,
            bus: Vec::new(),
            ca: None,
        }
    }

    #[test]
    fn what_is_sealed_for_either_key_is_read_while_both_are_good() {
        let (old, new, other) = (keys(10), keys(11), keys(12));
        let [before, after, peer] = [
            certificate("a", &old, &old, 0),
            certificate("a", &old, &new, 1),
            certificate("b", &other, &other, 0),
        ];
        let ignorant = Secure::new(other.clone(), &membership(&peer, &[&before, &peer], 1), 1, []).unwrap();
        let both = membership(&after, &[&before, &after, &peer], 2);
        let former = || {
            vec![Former {
                key_epoch: 0,
                identity: old.clone(),
            }]
        };
        let rotated = || Secure::new(new.clone(), &both, 2, []).unwrap();
        let subject = |from: &Certificate, to: &Certificate| subject::control(&from.fleet, &from.node, &to.node);
        let say = |from: &Secure, to: &Certificate| {
            from.seal_pair(&to.node, Lane::Control, &subject(from.me(), to), b"hello")
                .unwrap()
        };
        // By one who has not heard of the new keys.
        let frame = say(&ignorant, &before);
        let (to_a, to_b) = (subject(&peer, &before), subject(&before, &peer));
        assert!(rotated().open(&to_a, &frame).is_err());
        let rotated = rotated().with_former(former());
        assert_eq!(rotated.open(&to_a, &frame).unwrap().plaintext, b"hello");
        assert!(rotated.has_former() && rotated.is_believed_by_former());
        // It believes the old keys, and by them it learns of the new ones.
        assert!(ignorant.open(&to_b, &say(&rotated, &peer)).is_err());
        let shown = rotated
            .seal_by_former(&peer, Lane::Control, &to_b, b"new keys")
            .unwrap()
            .unwrap();
        assert_eq!(ignorant.open(&to_b, &shown).unwrap().sender.key_epoch, 0);
        assert!(ignorant.admit_own(&peer.node, &both.certificate).is_err(), "another's");
        assert!(ignorant.admit_own(&before.node, &both.certificate).unwrap());
        assert_eq!(ignorant.open(&to_b, &say(&rotated, &peer)).unwrap().sender.key_epoch, 1);
        assert_eq!(
            rotated.open(&to_a, &say(&ignorant, &before)).unwrap().plaintext,
            b"hello"
        );
        // One that has only offered them is spoken to by them already.
        let offering = Secure::new(old.clone(), &membership(&before, &[&before, &peer], 1), 1, []).unwrap();
        let frame = say(&ignorant, &before);
        assert!(offering.open(&to_a, &frame).is_err());
        offering.offer(Some(new.clone()));
        assert!(offering.open(&to_a, &frame).is_ok());
        // The overlap is over.
        let stale = rotated
            .seal_by_former(&peer, Lane::Control, &to_b, b"old")
            .unwrap()
            .unwrap();
        ignorant.forget_older(&before.node, 1);
        assert!(ignorant.open(&to_b, &stale).is_err());
        rotated.forget_former();
        assert!(
            rotated
                .seal_by_former(&peer, Lane::Control, &to_b, b"old")
                .unwrap()
                .is_none()
        );
        let alone = membership(&after, &[&after, &peer], 3);
        assert!(rotated.update(alone.roster, alone.group).unwrap() && !rotated.is_believed_by_former());
    }

    #[test]
    fn keys_change_once_and_a_crash_on_the_way_is_made_good() {
        for crashes in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::open(dir.path()).unwrap();
            let old = home.identity().unwrap();
            home.save_membership(&membership(&certificate("a", &old, &old, 0), &[], 1))
                .unwrap();
            home.store_sealed("secrets", b"hunter2").unwrap();
            let next = home.next_keys().unwrap();
            assert_eq!(home.next_keys().unwrap().public(), next.public(), "made once");
            home.finish_rotation().unwrap();
            assert_eq!(home.identity().unwrap().public(), old.public(), "only offered");
            let taken = membership(&certificate("a", &old, &next, 1), &[], 2);
            if crashes {
                home.keep_former(home.membership().unwrap().as_ref()).unwrap();
                home.save_membership(&taken).unwrap();
                assert_eq!(home.identity().unwrap().public(), old.public());
                home.finish_rotation().unwrap();
            } else {
                home.take_next_keys(&taken).unwrap();
            }
            home.finish_rotation().unwrap();
            assert_eq!(home.identity().unwrap().public(), next.public());
            assert!(home.offered_keys().unwrap().is_none());
            let former = home.former_keys().unwrap();
            assert_eq!(
                former
                    .iter()
                    .map(|one| (one.key_epoch, one.identity.public()))
                    .collect::<Vec<_>>(),
                [(0, old.public())]
            );
            let opened = home.load_sealed("secrets").unwrap().unwrap();
            home.store_sealed("secrets", &opened).unwrap();
            home.forget_former_keys().unwrap();
            assert_eq!(home.load_sealed("secrets").unwrap().unwrap().as_slice(), b"hunter2");
            assert!(home.former_keys().unwrap().is_empty());
            assert_ne!(
                home.next_keys().unwrap().public(),
                next.public(),
                "the next ones are others"
            );
            home.drop_next_keys().unwrap();
            assert!(home.offered_keys().unwrap().is_none());
        }
    }
}
