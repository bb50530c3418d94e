//! One thread: the same operations give the same results, lap after lap.

use std::cell::RefCell;

use framegate_loom_tests::watchdog::Watchdog;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::{LIMIT, Shipped, Twin};

const CASES: u32 = 1000;
const OPERATIONS: usize = 1000;

/// Often the bounds that the models have, and some that are no power of two, or one less.
fn capacities() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1usize..=4, 1 => prop::sample::select(vec![5, 6, 7, 8, 15, 16, 17, 33, 100])]
}

/// Whether to push, if not to pop: runs of each that fill and empty a queue now and then.
fn pushes(capacity: usize) -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<u8>(), OPERATIONS).prop_map(move |bytes| {
        let fills = |at: usize| (at / (3 * capacity)).is_multiple_of(2);
        let push = |(at, byte): (usize, u8)| byte < if fills(at) { 200 } else { 56 };
        bytes.into_iter().enumerate().map(push).collect()
    })
}

/// What was compared in all cases together.
#[derive(Debug, Default)]
struct Compared {
    operations: usize,
    refusals: usize,
    found_empty: usize,
    most_laps: u64,
}

fn compare(capacity: usize, pushes: &[bool], compared: &mut Compared) -> Result<(), TestCaseError> {
    let (twin, shipped) = (Twin::new(capacity), Shipped::new(capacity));
    let (mut number, mut popped) = (0, 0);
    for &push in pushes {
        if push {
            let result = twin.push(number);
            prop_assert_eq!(result, shipped.push(number));
            compared.refusals += usize::from(result.is_err());
            number += 1;
        } else {
            let result = twin.pop();
            prop_assert_eq!(result, shipped.pop());
            compared.found_empty += usize::from(result.is_none());
            popped += u64::from(result.is_some());
        }
        prop_assert_eq!(twin.is_empty(), shipped.is_empty());
        prop_assert_eq!(twin.is_full(), shipped.is_full());
        compared.operations += 1;
    }
    prop_assert_eq!((twin.capacity(), shipped.capacity()), (capacity, capacity));
    compared.most_laps = compared.most_laps.max(popped / capacity as u64);
    Ok(())
}

#[test]
fn the_twin_does_what_the_shipped_queue_does() {
    let _watched = Watchdog::new("the twin and the shipped queue, one thread".into(), LIMIT);
    let compared = RefCell::new(Compared::default());
    let config = Config { source_file: Some(file!()), ..Config::with_cases(CASES) };
    let cases = capacities().prop_flat_map(|capacity| (Just(capacity), pushes(capacity)));
    TestRunner::new(config)
        .run(&cases, |(capacity, pushes)| compare(capacity, &pushes, &mut compared.borrow_mut()))
        .unwrap();
    let compared = compared.into_inner();
    println!("{compared:?}");
    assert!(compared.operations >= 1_000_000);
    assert!(compared.refusals > 10_000 && compared.found_empty > 10_000, "{compared:?}");
    assert!(compared.most_laps > 100, "{compared:?}");
}
