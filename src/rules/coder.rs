//! Boxes as deltas from reference boxes: `(dx, dy)` of the centre in reference sides, `(dw, dh)` as
//! logarithms of the ratio of sides, each times a weight (Ren et al. 2015, equation 2).

use crate::geometry::Box2;

/// A family's numbers in the code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coder {
    /// Of `(dx, dy, dw, dh)`.
    pub weights: [f64; 4],
    /// Decoded sides grow at most by this factor; infinite is no limit.
    pub largest_growth: f64,
    /// Added to every side before it is divided by, when boxes are encoded.
    pub epsilon: f64,
}

impl Coder {
    /// torchvision's, of the RPN.
    pub const TORCHVISION_RPN: Self =
        Self { weights: [1., 1., 1., 1.], largest_growth: 1000. / 16., epsilon: 0. };
    /// torchvision's, of the box head.
    pub const TORCHVISION_ROI: Self =
        Self { weights: [10., 10., 5., 5.], largest_growth: 1000. / 16., epsilon: 0. };
    /// TensorFlow's, of both.
    pub const TF: Self =
        Self { weights: [10., 10., 5., 5.], largest_growth: f64::INFINITY, epsilon: 1e-8 };

    /// The box that `deltas` lead to from `reference`.
    ///
    /// # Panics
    /// If there are not four deltas.
    pub fn apply(&self, deltas: &[f32], reference: Box2) -> Box2 {
        let &[dx, dy, dw, dh] = deltas else { panic!("{} deltas of a box", deltas.len()) };
        let [wx, wy, ww, wh] = self.weights.map(|weight| weight as f32);
        let largest = self.largest_growth.ln() as f32;
        // `min` would take the limit for a NaN.
        let growth = |d: f32| if d > largest { largest } else { d }.exp();
        let (rw, rh) = (reference.width(), reference.height());
        let x = dx / wx * rw + (reference.x1 + rw * 0.5);
        let y = dy / wy * rh + (reference.y1 + rh * 0.5);
        let (half_w, half_h) = (growth(dw / ww) * rw * 0.5, growth(dh / wh) * rh * 0.5);
        Box2::new(x - half_w, y - half_h, x + half_w, y + half_h)
    }
}
