//! Boxes as tensors: `[N, 4]` f32 `(x1, y1, x2, y2)`.

use detect::geometry::{Box2, Label, Size};
use tch::{Device, Kind, Tensor};

use crate::shim;

/// `[N, 4]` on the CPU.
pub fn to_tensor(boxes: &[Box2]) -> Tensor {
    let flat: Vec<f32> = boxes.iter().flat_map(|b| [b.x1, b.y1, b.x2, b.y2]).collect();
    Tensor::from_slice(&flat).reshape([-1, 4])
}

/// `[N]` int64 on the CPU; 0 is background, class `k` is `k + 1`.
pub fn labels_to_tensor(labels: &[Label]) -> Tensor {
    let flat: Vec<i64> = labels.iter().map(|l| l.0 as i64 + 1).collect();
    Tensor::from_slice(&flat)
}

/// `xs`, which is on the CPU or there already, on `device`. A GPU is not waited for: the numbers are taken at once, into
/// memory that it reads by itself, and arrive before whatever is asked of it next.
pub fn upload(xs: &Tensor, device: Device) -> Tensor {
    let pinned = (device.is_cuda() && xs.device() == Device::Cpu).then(|| shim::pinned(xs));
    pinned.flatten().as_ref().unwrap_or(xs).to_device_(device, xs.kind(), true, false)
}

/// `[N]` int64 on `device`: what `nms` kept, for `index_select`.
pub fn indices(kept: &[usize], device: Device) -> Tensor {
    let flat: Vec<i64> = kept.iter().map(|&i| i as i64).collect();
    upload(&Tensor::from_slice(&flat), device)
}

/// The boxes of a `[N, 4]` tensor.
///
/// # Panics
/// If the tensor can't be read: a bug of ours.
pub fn from_tensor(boxes: &Tensor) -> Vec<Box2> {
    to_vec(boxes).chunks_exact(4).map(|b| Box2::new(b[0], b[1], b[2], b[3])).collect()
}

/// The numbers of a tensor of any shape in row-major order, as f32.
///
/// # Panics
/// If the tensor can't be read: a bug of ours.
pub fn to_vec(xs: &Tensor) -> Vec<f32> {
    let flat = xs.to_device(Device::Cpu).to_kind(Kind::Float).contiguous().reshape([-1]);
    Vec::<f32>::try_from(&flat).expect("a flat float tensor on the CPU")
}

/// Boxes around the origin `[A, 4]` moved to every cell of a `grid` (height, width) of `step` pixels:
/// `[H * W * A, 4]`, both on the CPU.
pub fn at_cells(boxes: &Tensor, grid: [i64; 2], step: [i64; 2]) -> Tensor {
    let [ys, xs] =
        [0, 1].map(|axis| Tensor::arange(grid[axis], (Kind::Float, Device::Cpu)) * step[axis]);
    let grids = Tensor::meshgrid_indexing(&[&ys, &xs], "ij");
    let (ys, xs) = (grids[0].reshape([-1]), grids[1].reshape([-1]));
    let shift = Tensor::stack(&[&xs, &ys, &xs, &ys], 1); // [H * W, 4]
    (shift.unsqueeze(1) + boxes.unsqueeze(0)).reshape([-1, 4])
}

/// IoU of each pair, by torchvision's float expression, which its matcher compares for equality.
///
/// # Shapes
/// `[G, 4]`, `[A, 4]` to `[G, A]`; 0/0 is NaN.
pub fn iou(a: &Tensor, b: &Tensor) -> Tensor {
    let (inter, union) = overlap(a, b);
    inter / union
}

/// Generalised IoU of each pair (Rezatofighi et al. 2019): IoU less the share of the smallest box around
/// both that neither covers; -1 to 1.
///
/// # Shapes
/// `[G, 4]`, `[A, 4]` to `[G, A]`.
pub fn generalized_iou(a: &Tensor, b: &Tensor) -> Tensor {
    let (inter, union) = overlap(a, b);
    let top_left = a.narrow(1, 0, 2).unsqueeze(1).minimum(&b.narrow(1, 0, 2)); // [G, A, 2]
    let bottom_right = a.narrow(1, 2, 2).unsqueeze(1).maximum(&b.narrow(1, 2, 2)); // [G, A, 2]
    let around = (bottom_right - top_left).clamp_min(0.);
    let hull = around.select(2, 0) * around.select(2, 1); // [G, A]
    inter / &union - (&hull - &union) / &hull
}

/// Areas of the intersection and of the union of each pair: `[G, A]`.
fn overlap(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let area = |xs: &Tensor| {
        let side = |axis| xs.select(1, axis + 2) - xs.select(1, axis);
        side(0) * side(1) // [N]
    };
    let shared = |axis: i64| {
        let edge = |xs: &Tensor, from: i64| xs.select(1, axis + from);
        let start = edge(a, 0).unsqueeze(1).maximum(&edge(b, 0)); // [G, A]
        let end = edge(a, 2).unsqueeze(1).minimum(&edge(b, 2)); // [G, A]
        (end - start).clamp_min(0.)
    };
    let inter = shared(0) * shared(1); // [G, A]
    let union = area(a).unsqueeze(1) + area(b) - &inter; // [G, A]
    (inter, union)
}

/// The parts inside an image of `size`.
///
/// # Shapes
/// `[.., 4]` to the same.
pub fn clip(boxes: &Tensor, size: Size) -> Tensor {
    let (w, h) = (size.width as f32, size.height as f32);
    let limits = upload(&Tensor::from_slice(&[w, h, w, h]), boxes.device());
    boxes.clamp_min(0.).minimum(&limits)
}
