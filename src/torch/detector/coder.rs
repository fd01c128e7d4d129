//! Boxes as deltas from reference boxes: `(dx, dy)` of the centre in reference sides, `(dw, dh)` as
//! logarithms of the ratio of sides, each times a weight (Ren et al. 2015, equation 2).

use tch::{Kind, Tensor};

/// Weights of `(dx, dy, dw, dh)` in the RPN.
pub const RPN_WEIGHTS: [f64; 4] = [1., 1., 1., 1.];
/// Weights of `(dx, dy, dw, dh)` in the box head.
pub const ROI_WEIGHTS: [f64; 4] = [10., 10., 5., 5.];

/// Decoded sides grow at most by this factor; torchvision's limit on the logarithm.
const LARGEST_GROWTH: f64 = 1000. / 16.;

/// Left, top, width and height columns of `[.., 4]` boxes.
fn sides(boxes: &Tensor) -> [Tensor; 4] {
    let column = |i| boxes.select(-1, i);
    let (w, h) = (column(2) - column(0), column(3) - column(1));
    [column(0), column(1), w, h]
}

/// Deltas that lead from `reference` to `boxes`.
///
/// # Shapes
/// Both `[R, 4]`, to `[R, 4]`. A box without area gives infinities.
pub fn encode(boxes: &Tensor, reference: &Tensor, weights: [f64; 4]) -> Tensor {
    let [rx, ry, rw, rh] = sides(reference);
    let [bx, by, bw, bh] = sides(boxes);
    let centre = |start: &Tensor, side: &Tensor| start + side * 0.5;
    let dx = (centre(&bx, &bw) - centre(&rx, &rw)) * weights[0] / &rw;
    let dy = (centre(&by, &bh) - centre(&ry, &rh)) * weights[1] / &rh;
    let dw = (&bw / &rw).log() * weights[2];
    let dh = (&bh / &rh).log() * weights[3];
    Tensor::stack(&[dx, dy, dw, dh], 1)
}

/// The boxes that `deltas` lead to from `reference`.
///
/// # Shapes
/// `deltas` `[R, 4 K]`, `reference` `[R, 4]`, to `[R, K, 4]`.
pub fn decode(deltas: &Tensor, reference: &Tensor, weights: [f64; 4]) -> Tensor {
    let [rx, ry, rw, rh] = sides(&reference.to_kind(deltas.kind())).map(|t| t.unsqueeze(1)); // [R, 1]
    let deltas = deltas.reshape([deltas.size()[0], deltas.size()[1] / 4, 4]); // [R, K, 4]
    let column = |i: usize| deltas.select(2, i as i64) / weights[i]; // [R, K]
    let largest = LARGEST_GROWTH.ln();
    let (dw, dh) = (column(2).clamp_max(largest), column(3).clamp_max(largest));
    let x = column(0) * &rw + (&rx + &rw * 0.5);
    let y = column(1) * &rh + (&ry + &rh * 0.5);
    let (half_w, half_h) = (dw.exp() * &rw * 0.5, dh.exp() * &rh * 0.5);
    Tensor::stack(&[&x - &half_w, &y - &half_h, &x + &half_w, &y + &half_h], 2).to_kind(Kind::Float)
}
