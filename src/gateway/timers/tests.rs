use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn id(index: usize) -> FlowId {
    FlowId { index, generation: index as u64 }
}

#[derive(Clone, Debug)]
enum Step {
    NoLaterThan(i64, usize),
    Cancel(usize),
    Expire(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0i64..1000, 0usize..8).prop_map(|(at, flow)| Step::NoLaterThan(at, flow)),
        1 => (0usize..8).prop_map(Step::Cancel),
        2 => (0i64..1000).prop_map(Step::Expire),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Against a map from each flow to its earliest wish: one entry for a flow, the earliest first,
    /// nothing before its time and nothing lost.
    #[test]
    fn each_flow_has_one_entry_and_they_come_in_order(steps in steps()) {
        let mut timers = Timers::default();
        let mut entries: Vec<Option<Instant>> = vec![None; 8];
        let mut model: HashMap<usize, i64> = HashMap::new();
        for step in steps {
            match step {
                Step::NoLaterThan(at, flow) => {
                    timers.no_later_than(Instant::from_micros(at), id(flow), &mut entries[flow]);
                    model.entry(flow).and_modify(|old| *old = at.min(*old)).or_insert(at);
                }
                Step::Cancel(flow) => {
                    timers.cancel(id(flow), &mut entries[flow]);
                    model.remove(&flow);
                }
                Step::Expire(now) => {
                    let mut last = i64::MIN;
                    while let Some(flow) = timers.expired(Instant::from_micros(now)) {
                        entries[flow.index] = None;
                        let at = model.remove(&flow.index).unwrap();
                        prop_assert!(at <= now && at >= last);
                        last = at;
                    }
                    prop_assert!(model.values().all(|at| *at > now));
                }
            }
            prop_assert_eq!(timers.0.len(), model.len());
            prop_assert_eq!(timers.next().map(|at| at.total_micros()), model.values().min().copied());
            for (flow, entry) in entries.iter().enumerate() {
                prop_assert_eq!(entry.map(|at| at.total_micros()), model.get(&flow).copied());
            }
        }
    }
}

#[test]
fn a_later_wish_moves_nothing() {
    let mut timers = Timers::default();
    let mut entry = None;
    timers.no_later_than(Instant::from_secs(5), id(1), &mut entry);
    timers.no_later_than(Instant::from_secs(9), id(1), &mut entry);
    assert_eq!(entry, Some(Instant::from_secs(5)));
    assert_eq!(timers.expired(Instant::from_secs(4)), None);
    assert_eq!(timers.expired(Instant::from_secs(5)), Some(id(1)));
    assert_eq!(timers.next(), None);
}
