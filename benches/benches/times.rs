//! The time of a round of each part, and of how many of its units there are in a second.
//! `./ci.sh bench`

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn times(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    for part in framegate_benches::parts() {
        group.throughput(Throughput::Elements(part.units.into()));
        group.bench_function(part.name, |bencher| {
            let mut round = (part.prepare)();
            bencher.iter_custom(|rounds| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..rounds {
                    round(&mut |work| {
                        let began = Instant::now();
                        black_box(work)();
                        elapsed += began.elapsed();
                    });
                }
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group!(benches, times);
criterion_main!(benches);
