//! Which questions to ask for many points: as few as the protocol allows. Performs no I/O.

use super::frame::Span;

/// One question, and the points that its answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub span: Span,
    /// Indices of points, in the order of their spans.
    pub points: Vec<usize>,
    /// Nothing came the last time.
    pub was_silent: bool,
}

/// The fewest questions for these points, by index into `spans`: each point is in one of them as a whole, and no more than
/// `max_gap` values in a row are read that nobody wants. Going from left to right and asking for as much as fits is best,
/// because a question that begins later reaches at least as far.
pub(super) fn plan(spans: &[Span], mut points: Vec<usize>, max_gap: u16) -> Vec<Request> {
    points.sort_by_key(|point| (spans[*point], *point));
    let mut requests: Vec<Request> = Vec::new();
    for point in points {
        let span = spans[point];
        if let Some(last) = requests.last_mut()
            && let Some(longer) = joined(last.span, span, max_gap)
        {
            last.span = longer;
            last.points.push(point);
        } else {
            requests.push(Request {
                span,
                points: vec![point],
                was_silent: false,
            });
        }
    }
    requests
}

/// One span for both, if they may be asked for at once. `next` does not begin before `span`.
fn joined(span: Span, next: Span, max_gap: u16) -> Option<Span> {
    let end = span.end().max(next.end());
    let count = end - u32::from(span.start);
    let fits = span.table == next.table
        && u32::from(next.start) <= span.end() + u32::from(max_gap)
        && count <= u32::from(span.table.most());
    fits.then_some(Span {
        count: count as u16,
        ..span
    })
}

/// A question that was refused as two, to find out which of its points is to blame. `None`: it is one place, however many
/// points there are at it.
pub(super) fn halves(request: &Request, spans: &[Span]) -> Option<[Request; 2]> {
    let points = &request.points;
    let differs = |at: &usize| spans[points[at - 1]] != spans[points[*at]];
    let cuts = (1..points.len()).filter(differs);
    let cut = cuts.min_by_key(|at| at.abs_diff(points.len() / 2))?;
    let part = |points: &[usize]| Request {
        span: hull(spans, points),
        points: points.to_vec(),
        was_silent: false,
    };
    Some([part(&points[..cut]), part(&points[cut..])])
}

/// The shortest span that holds these points, which are in order.
fn hull(spans: &[Span], points: &[usize]) -> Span {
    let first = spans[points[0]];
    let end = points.iter().map(|point| spans[*point].end()).max();
    Span {
        count: (end.unwrap_or(0) - u32::from(first.start)) as u16,
        ..first
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::frame::Table, *};

    fn at(start: u16, count: u16) -> Span {
        Span {
            table: Table::Holding,
            start,
            count,
        }
    }

    fn bits(start: u16) -> Span {
        Span {
            table: Table::Coil,
            start,
            count: 1,
        }
    }

    /// `table start+count: points` of each question.
    fn shown(requests: &[Request]) -> String {
        let request = |request: &Request| {
            let Span { table, start, count } = request.span;
            format!("{table:?} {start}+{count}: {:?}", request.points)
        };
        requests.iter().map(request).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn neighbours_are_read_together() {
        let input = Span {
            table: Table::Input,
            ..at(2, 2)
        };
        for (what, spans, max_gap, wanted) in [
            ("nothing", vec![], 0, ""),
            ("neighbours", vec![at(2, 2), at(0, 2)], 0, "Holding 0+4: [1, 0]"),
            (
                "a gap",
                vec![at(0, 2), at(3, 1)],
                0,
                "Holding 0+2: [0]\nHolding 3+1: [1]",
            ),
            ("a gap that may be", vec![at(0, 2), at(3, 1)], 1, "Holding 0+4: [0, 1]"),
            ("the same twice", vec![at(7, 1), at(7, 1)], 0, "Holding 7+1: [0, 1]"),
            (
                "one inside another",
                vec![at(0, 8), at(2, 1), at(8, 1)],
                0,
                "Holding 0+9: [0, 1, 2]",
            ),
            ("tables", vec![at(0, 2), input], 9, "Holding 0+2: [0]\nInput 2+2: [1]"),
            ("just full", vec![at(0, 121), at(121, 4)], 0, "Holding 0+125: [0, 1]"),
            (
                "too full",
                vec![at(0, 122), at(122, 4)],
                0,
                "Holding 0+122: [0]\nHolding 122+4: [1]",
            ),
            (
                "bits",
                vec![bits(0), bits(1999), bits(2000)],
                1998,
                "Coil 0+2000: [0, 1]\nCoil 2000+1: [2]",
            ),
            (
                "the last",
                vec![at(65_535, 1), at(65_411, 1)],
                500,
                "Holding 65411+125: [1, 0]",
            ),
        ] {
            let points = (0..spans.len()).collect();
            assert_eq!(shown(&plan(&spans, points, max_gap)), wanted, "{what}");
        }
    }

    #[test]
    fn halving_ends_at_the_places_themselves() {
        let spans = [at(0, 1), at(0, 1), at(0, 1), at(1, 2), at(3, 1)];
        let [request] = &plan(&spans, vec![0, 1, 2, 3, 4], 0)[..] else {
            panic!("not one")
        };
        let [left, right] = halves(request, &spans).unwrap();
        assert_eq!(
            shown(&[left.clone(), right.clone()]),
            "Holding 0+1: [0, 1, 2]\nHolding 1+3: [3, 4]"
        );
        assert_eq!(halves(&left, &spans), None);
        let [left, right] = halves(&right, &spans).unwrap();
        assert_eq!(
            shown(&[left.clone(), right.clone()]),
            "Holding 1+2: [3]\nHolding 3+1: [4]"
        );
        assert_eq!((halves(&left, &spans), halves(&right, &spans)), (None, None));
    }

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let span = (
            prop_oneof![Just(Table::Coil), Just(Table::Holding)],
            0_u16..600,
            1_u16..=125,
        );
        let span = span.prop_map(|(table, start, count)| Span { table, start, count });
        proptest::collection::vec(span, 1..24)
    }

    /// The fewest questions for points in order, by trying every way to cut them into runs.
    fn fewest(spans: &[Span], points: &[usize], max_gap: u16) -> usize {
        let mut best = vec![0];
        for end in 1..=points.len() {
            let run = |start: &usize| {
                let mut all = spans[points[*start]];
                points[*start..end].iter().all(|point| {
                    let more = joined(all, spans[*point], max_gap);
                    more.map(|longer| all = longer).is_some()
                })
            };
            let least = (0..end).filter(run).map(|start| best[start] + 1).min();
            best.push(least.unwrap());
        }
        best[points.len()]
    }

    proptest! {
        #[test]
        fn a_plan_is_whole_within_limits_and_short(spans in spans(), max_gap in 0_u16..40) {
            let requests = plan(&spans, (0..spans.len()).collect(), max_gap);
            let mut seen: Vec<usize> = requests.iter().flat_map(|request| request.points.clone()).collect();
            let in_order = seen.clone();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..spans.len()).collect::<Vec<_>>());
            for Request { span, points, .. } in &requests {
                prop_assert!(span.count >= 1 && span.count <= span.table.most());
                let mut wanted = u32::from(span.start);
                for point in points {
                    let point = spans[*point];
                    prop_assert!(point.table == span.table && point.start >= span.start && point.end() <= span.end());
                    prop_assert!(u32::from(point.start) <= wanted + u32::from(max_gap), "a gap before {point:?}");
                    wanted = wanted.max(point.end());
                }
                prop_assert_eq!(wanted, span.end());
            }
            prop_assert_eq!(requests.len(), fewest(&spans, &in_order, max_gap));
        }

        /// Halving again and again ends, loses no point and asks for no more than before.
        #[test]
        fn halves_are_the_whole(spans in spans()) {
            let mut left = plan(&spans, (0..spans.len()).collect(), 40);
            let mut single = Vec::new();
            while let Some(request) = left.pop() {
                match halves(&request, &spans) {
                    Some(parts) => {
                        let is_within = |part: &Request| {
                            part.span.start >= request.span.start && part.span.end() <= request.span.end()
                        };
                        prop_assert!(parts.iter().all(is_within));
                        left.extend(parts);
                    }
                    None => {
                        prop_assert!(request.points.iter().all(|point| spans[*point] == request.span));
                        single.extend(request.points);
                    }
                }
            }
            single.sort_unstable();
            prop_assert_eq!(single, (0..spans.len()).collect::<Vec<_>>());
        }
    }
}
