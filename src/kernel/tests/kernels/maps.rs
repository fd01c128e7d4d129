//! Maps in a memory, and a step that is run in it.

use std::sync::LazyLock;

use detect_kernel::{Grid, Instructions, Memory, Operation, Out, Segment, Step, View, run};
use half::bf16;
use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// All sets of this processor.
pub(crate) fn sets() -> impl Iterator<Item = Instructions> {
    Instructions::available().into_iter().chain(Instructions::available_bf16())
}

/// Threads with which each case is run.
pub(crate) const THREADS: [usize; 2] = [1, 3];

static POOLS: LazyLock<[ThreadPool; 2]> =
    LazyLock::new(|| THREADS.map(|n| ThreadPoolBuilder::new().num_threads(n).build().unwrap()));

/// What the products of `set` read of a number.
pub(crate) fn read_by(set: Instructions, number: f32) -> f32 {
    if set.packing().inputs == 1 { number } else { bf16::from_f32(number).to_f32() }
}

/// A whole number from -3 to 3, a bfloat16. Sums and products of few of them are exact in any order, with or without FMA.
pub(crate) fn number(seed: u32, i: usize) -> f32 {
    let mixed = (i as u32 ^ seed.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b9);
    ((mixed ^ mixed >> 15).wrapping_mul(0xc2b2_ae35) >> 16) as f32 % 7. - 3.
}

/// What stands in a float of no map.
fn nothing(place: usize) -> f32 {
    f32::from_bits(0x7fc0_0001 + place as u32)
}

/// Floats between things: before a map, and after each of its pixels, rows and images.
pub(crate) type Gaps = [usize; 4];

pub(crate) fn gaps() -> impl Strategy<Value = Gaps> {
    prop_oneof![Just([0; 4]), [0..9_usize, 0..4_usize, 0..4_usize, 0..4_usize]]
}

/// Maps of a few pixels, and of several tiles.
pub(crate) fn grids() -> impl Strategy<Value = Grid> {
    let few = (1..3_usize, 1..8_usize, 1..9_usize);
    let many = (1..3_usize, 1..3_usize, 40..110_usize);
    prop_oneof![3 => few, 1 => many].prop_map(|(images, height, width)| Grid {
        images,
        height,
        width,
    })
}

pub(crate) fn pixels(grid: Grid) -> impl Iterator<Item = [usize; 3]> {
    let Grid { images, height, width } = grid;
    let rows = (0..images).flat_map(move |image| (0..height).map(move |y| (image, y)));
    rows.flat_map(move |(image, y)| (0..width).map(move |x| [image, y, x]))
}

pub(crate) fn place(view: &View, [image, y, x]: [usize; 3]) -> usize {
    view.start + image * view.image + y * view.row + x * view.pixel
}

/// Maps one after the other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Maps {
    pub(crate) floats: Vec<f32>,
}

impl Maps {
    /// A map of `channels` floats a pixel with `margin` pixels around it; with its last pixel the memory ends.
    pub(crate) fn add(&mut self, grid: Grid, channels: usize, margin: usize, gaps: Gaps) -> View {
        let [before, pixel, row, image] = gaps;
        let pixel = channels + pixel;
        let row = (grid.width + 2 * margin) * pixel + row;
        let image = (grid.height + 2 * margin) * row + image;
        let start = self.floats.len() + before + margin * (row + pixel);
        let view = View { start, pixel, row, image };
        let last = place(&view, [grid.images - 1, grid.height - 1, grid.width - 1]);
        let end = last + margin * (row + pixel) + channels;
        self.floats.extend((self.floats.len()..end).map(nothing));
        view
    }

    /// The same, its floats set to `value(pixel, channel)`.
    pub(crate) fn filled(
        &mut self,
        grid: Grid,
        channels: usize,
        gaps: Gaps,
        value: impl Fn([usize; 3], usize) -> f32,
    ) -> View {
        let view = self.add(grid, channels, 0, gaps);
        for pixel in pixels(grid) {
            for channel in 0..channels {
                self.floats[place(&view, pixel) + channel] = value(pixel, channel);
            }
        }
        view
    }
}

/// Where results are to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) relu: bool,
    pub(crate) margin: usize,
    pub(crate) gaps: Gaps,
}

pub(crate) fn targets() -> impl Strategy<Value = Vec<Target>> {
    let some = |count| {
        let one = (any::<bool>(), 0..4_usize, gaps());
        let one = one.prop_map(|(relu, margin, gaps)| Target { relu, margin, gaps });
        prop::collection::vec(one, count)
    };
    prop_oneof![3 => some(1..3), 1 => some(3..7)]
}

impl Maps {
    pub(crate) fn outs(&mut self, targets: &[Target], grid: Grid, channels: usize) -> Vec<Out> {
        let one = |&Target { relu, margin, gaps }: &Target| {
            let view = self.add(grid, channels, margin, gaps);
            Out { view, relu, margin, around: channels }
        };
        targets.iter().map(one).collect()
    }

    /// What a step leaves that computes `value(pixel, channel)`.
    pub(crate) fn after(
        &self,
        outs: &[Out],
        grid: Grid,
        channels: usize,
        value: impl Fn([usize; 3], usize) -> f32,
    ) -> Vec<f32> {
        let mut floats = self.floats.clone();
        for Out { view, relu, margin, around } in outs {
            let (down, across) = (grid.height + 2 * margin, grid.width + 2 * margin);
            let origin = view.start - margin * (view.row + view.pixel);
            let all = View { start: origin, ..*view };
            for pixel in pixels(Grid { images: grid.images, height: down, width: across }) {
                let [image, y, x] = pixel;
                let inside = |at: usize, n: usize| (*margin..margin + n).contains(&at);
                let floats = &mut floats[place(&all, pixel)..];
                if inside(y, grid.height) && inside(x, grid.width) {
                    for (channel, float) in floats[..channels].iter_mut().enumerate() {
                        let value = value([image, y - margin, x - margin], channel);
                        *float = if *relu && value < 0. { 0. } else { value };
                    }
                } else {
                    floats[..*around].fill(0.);
                }
            }
        }
        floats
    }
}

/// A residual of `channels` floats a pixel, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Residual(pub(crate) Option<Gaps>);

impl Residual {
    pub(crate) fn at([image, y, x]: [usize; 3], channel: usize) -> f32 {
        number(77, ((image * 131 + y) * 131 + x) * 257 + channel)
    }

    pub(crate) fn add(self, maps: &mut Maps, grid: Grid, channels: usize) -> Option<View> {
        self.0.map(|gaps| maps.filled(grid, channels, gaps, Self::at))
    }

    pub(crate) fn of(self, pixel: [usize; 3], channel: usize) -> f32 {
        if self.0.is_some() { Self::at(pixel, channel) } else { 0. }
    }
}

/// The memory, of which `floats` is all, after `step`.
pub(crate) fn after(
    instructions: Instructions,
    threads: usize,
    step: &Step,
    floats: &[f32],
    given: &[f32],
) -> Vec<f32> {
    let pool = &POOLS[THREADS.iter().position(|&n| n == threads).unwrap()];
    let origin = View { start: 0, pixel: 0, row: 0, image: 0 };
    let fill = Step {
        operation: Operation::Copy {
            given: true,
            source: origin,
            segments: vec![Segment { offset: 0, length: floats.len() }],
        },
        grid: Grid { images: 1, height: 1, width: 1 },
        channels: floats.len(),
        residual: None,
        outs: vec![Out { view: origin, relu: false, margin: 0, around: 0 }],
    };
    let mut memory = Memory::default();
    memory.grow(floats.len(), threads, step.scratch());
    // SAFETY: each wave is one step, which reads nothing that it writes.
    unsafe {
        run(instructions, &[vec![fill]], &mut memory, floats, pool);
        run(instructions, &[vec![step.clone()]], &mut memory, given, pool);
    }
    memory.floats().to_vec()
}

/// Whether the memory is what it should be, numbers within `limit`.
pub(crate) fn compare(found: &[f32], expected: &[f32], limit: f32) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let same = if expected.is_nan() {
            found.to_bits() == expected.to_bits()
        } else {
            (found - expected).abs() <= limit
        };
        prop_assert!(same, "float {}: {} instead of {}", place, found, expected);
    }
    Ok(())
}

/// Runs `step` with one thread and with three.
pub(crate) fn check(
    instructions: Instructions,
    step: &Step,
    before: &[f32],
    given: &[f32],
    expected: &[f32],
    limit: f32,
) -> Result<(), TestCaseError> {
    for threads in THREADS {
        let found = after(instructions, threads, step, before, given);
        compare(&found, expected, limit).map_err(|error| {
            let with = format!("{} on {threads} threads: {error}", instructions.name());
            TestCaseError::fail(with)
        })?;
    }
    Ok(())
}
