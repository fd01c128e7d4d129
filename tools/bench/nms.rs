//! `cargo bench --bench nms`: non-maximum suppression of 2,000 boxes on one core.

use criterion::{Criterion, criterion_group, criterion_main};
use detect::geometry::Box2;
use detect::nms::nms;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

fn nms_2000(c: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut boxes = Vec::new();
    let mut scores = Vec::new();
    for _ in 0..2000 {
        let [x, y] = [1333., 800.].map(|side: f32| rng.random_range(0. ..side));
        let [w, h] = [(); 2].map(|()| rng.random_range(16. ..200.));
        boxes.push(Box2::new(x, y, x + w, y + h));
        scores.push(rng.random::<f32>());
    }
    c.bench_function("nms_2000", |b| b.iter(|| nms(&boxes, &scores, 0.7)));
    // The worst case: nothing is suppressed.
    c.bench_function("nms_2000_all_kept", |b| b.iter(|| nms(&boxes, &scores, 1.)));
}

criterion_group!(benches, nms_2000);
criterion_main!(benches);
