//! Names for what is sent, so that whoever gets it twice can tell. A name says where a record stands (lineage, number of the
//! delivery) and what it is: after a crash a source may cut its records into other deliveries, and then one number stands
//! for other records; without their content in it, the name would make the receiver throw them away.

use flow::Delivery;

use crate::file::hash;

/// The name of a delivery, made of lineage, number, position and `content`: what is sent of it.
pub(crate) fn of(delivery: &Delivery, content: &[u8]) -> String {
    // A stream's numbers begin with its epoch: lineage and number are unique by themselves there.
    let place = hash(delivery.position.as_bytes()).rotate_left(1);
    format!("{}/{}/{:016x}", delivery.stream, delivery.seq, place ^ hash(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{rows, testing};

    #[test]
    fn only_the_same_again_has_the_same_name() {
        let delivery = |seq| testing::delivery("a", seq, rows::empty("t"));
        let name = of(&delivery(7), b"x");
        assert_eq!(name, of(&delivery(7), b"x"));
        let elsewhere = testing::delivery("b", 7, rows::empty("t"));
        let mut further = delivery(7);
        further.position = flow::Position::new(*b"further");
        for other in [
            of(&delivery(8), b"x"),
            of(&delivery(7), b"y"),
            of(&elsewhere, b"x"),
            of(&further, b"x"),
        ] {
            assert_ne!(name, other);
        }
    }
}
