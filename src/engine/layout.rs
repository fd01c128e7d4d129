//! Where the buffers of a program lie in its memory.

/// Floats of a cache line.
const LINE: usize = 16;

/// What is known of a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Floats.
    pub(super) length: usize,
    /// The first and the last wave in which it is in use.
    pub(super) used: [usize; 2],
}

impl Span {
    fn meets(&self, other: &Self) -> bool {
        self.used[0] <= other.used[1] && other.used[0] <= self.used[1]
    }

    /// In whole cache lines.
    fn room(&self) -> usize {
        self.length.next_multiple_of(LINE)
    }
}

/// Where each buffer begins, and how many floats there are in all. Two that are in use in the same wave have no float in
/// common.
pub(super) fn lay_out(spans: &[Span], threads: usize) -> (Vec<usize>, usize) {
    // Large ones first: small ones fit into what they leave.
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(spans[i].length));
    if threads > 1 { around_centres(spans, &order) } else { close_together(spans, &order) }
}

/// Each where there is room, at the lowest place.
fn close_together(spans: &[Span], order: &[usize]) -> (Vec<usize>, usize) {
    let mut starts = vec![0; spans.len()];
    let mut floats = 0;
    for (number, &i) in order.iter().enumerate() {
        let earlier = order[..number].iter().filter(|&&other| spans[other].meets(&spans[i]));
        let mut taken: Vec<[usize; 2]> =
            earlier.map(|&other| [starts[other], starts[other] + spans[other].room()]).collect();
        taken.sort_unstable();
        let mut start = 0;
        for [begin, end] in taken {
            if start + spans[i].room() <= begin {
                break;
            }
            start = start.max(end);
        }
        starts[i] = start;
        floats = floats.max(start + spans[i].room());
    }
    (starts, floats)
}

/// Buffers that have a place one after the other have it around the same centre. Threads keep to their part of each map, and so
/// to their side of the memory: what another thread wrote last has to come out of that processor's caches before it can be
/// overwritten.
fn around_centres(spans: &[Span], order: &[usize]) -> (Vec<usize>, usize) {
    struct Place {
        start: usize,
        room: usize,
        buffers: Vec<usize>,
    }
    let mut places: Vec<Place> = Vec::new();
    let mut starts = vec![0; spans.len()];
    let mut floats = 0;
    for &i in order {
        let room = spans[i].room();
        let free = |place: &Place| place.buffers.iter().all(|&b| !spans[b].meets(&spans[i]));
        // They become smaller: the last is the closest in size.
        let at = places.iter().rposition(free).unwrap_or_else(|| {
            places.push(Place { start: floats, room, buffers: Vec::new() });
            floats += room;
            places.len() - 1
        });
        let place = &mut places[at];
        place.buffers.push(i);
        starts[i] = place.start + (place.room - room) / 2 / LINE * LINE;
    }
    (starts, floats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let span = (1..2000_usize, 0..20_usize, 0..6_usize);
        let of = |(length, first, more)| Span { length, used: [first, first + more] };
        prop::collection::vec(span.prop_map(of), 0..40)
    }

    proptest! {
        #[test]
        fn buffers_in_use_at_the_same_time_are_apart(spans in spans(), threads in 1..3_usize) {
            let (starts, floats) = lay_out(&spans, threads);
            for (i, (span, start)) in spans.iter().zip(&starts).enumerate() {
                prop_assert!(start + span.length <= floats && start.is_multiple_of(LINE));
                for (other, begin) in spans.iter().zip(&starts).take(i) {
                    let together = (0..30)
                        .any(|wave| [span, other].iter().all(|s| s.used[0] <= wave && wave <= s.used[1]));
                    let apart = start + span.length <= *begin || begin + other.length <= *start;
                    prop_assert!(apart || !together);
                }
            }
        }

        #[test]
        fn threads_keep_to_their_side(spans in spans()) {
            let (starts, _) = lay_out(&spans, 2);
            let centre = |i: usize| 2 * starts[i] + spans[i].length;
            for i in 0..spans.len() {
                for other in 0..i {
                    let apart = starts[i] + spans[i].length <= starts[other]
                        || starts[other] + spans[other].length <= starts[i];
                    // Twice a line, since centres are counted double, for each of the two.
                    prop_assert!(apart || centre(i).abs_diff(centre(other)) <= 4 * LINE);
                }
            }
        }
    }

    #[test]
    fn one_thread_needs_no_more_than_what_is_in_use_where_that_fits() {
        let span = |length, used| Span { length, used };
        let spans = [span(64, [0, 1]), span(32, [2, 3]), span(32, [2, 3]), span(16, [4, 4])];
        assert_eq!(lay_out(&spans, 1), (vec![0, 0, 32, 0], 64));
        // Of two threads each has its half of the large one, and of one of the small ones.
        assert_eq!(lay_out(&spans, 2), (vec![0, 16, 64, 64], 96));
    }
}
