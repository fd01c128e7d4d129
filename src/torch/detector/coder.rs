//! The families' code of boxes ([`Coder`]) on tensors.

pub use detect::rules::Coder;
use tch::{Kind, Tensor};

/// A code of boxes on tensors.
pub trait Coding {
    /// Deltas that lead from `reference` to `boxes`.
    ///
    /// # Shapes
    /// Both `[R, 4]`, to `[R, 4]`. Without an epsilon a box without area gives infinities.
    fn encode(&self, boxes: &Tensor, reference: &Tensor) -> Tensor;

    /// The boxes that `deltas` lead to from `reference`.
    ///
    /// # Shapes
    /// `deltas` `[R, 4 K]`, `reference` `[R, 4]`, to `[R, K, 4]`.
    fn decode(&self, deltas: &Tensor, reference: &Tensor) -> Tensor;
}

impl Coding for Coder {
    fn encode(&self, boxes: &Tensor, reference: &Tensor) -> Tensor {
        let [rx, ry, rw, rh] = sides(reference);
        let [bx, by, bw, bh] = sides(boxes);
        let centre = |start: &Tensor, side: &Tensor| start + side * 0.5;
        let (x, y) = (centre(&bx, &bw) - centre(&rx, &rw), centre(&by, &bh) - centre(&ry, &rh));
        let [rw, rh, bw, bh] = [rw, rh, bw, bh].map(|side| side + self.epsilon);
        let weights = self.weights;
        let dx = x * weights[0] / &rw;
        let dy = y * weights[1] / &rh;
        let dw = (bw / rw).log() * weights[2];
        let dh = (bh / rh).log() * weights[3];
        Tensor::stack(&[dx, dy, dw, dh], 1)
    }

    fn decode(&self, deltas: &Tensor, reference: &Tensor) -> Tensor {
        let [rx, ry, rw, rh] = sides(&reference.to_kind(deltas.kind())).map(|t| t.unsqueeze(1)); // [R, 1]
        let deltas = deltas.reshape([deltas.size()[0], deltas.size()[1] / 4, 4]); // [R, K, 4]
        let column = |i: usize| deltas.select(2, i as i64) / self.weights[i]; // [R, K]
        let largest = self.largest_growth.ln();
        let (dw, dh) = (column(2).clamp_max(largest), column(3).clamp_max(largest));
        let x = column(0) * &rw + (&rx + &rw * 0.5);
        let y = column(1) * &rh + (&ry + &rh * 0.5);
        let (half_w, half_h) = (dw.exp() * &rw * 0.5, dh.exp() * &rh * 0.5);
        Tensor::stack(&[&x - &half_w, &y - &half_h, &x + &half_w, &y + &half_h], 2)
            .to_kind(Kind::Float)
    }
}

/// Left, top, width and height columns of `[.., 4]` boxes.
fn sides(boxes: &Tensor) -> [Tensor; 4] {
    let column = |i| boxes.select(-1, i);
    let (w, h) = (column(2) - column(0), column(3) - column(1));
    [column(0), column(1), w, h]
}
