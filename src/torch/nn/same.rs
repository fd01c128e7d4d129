//! TensorFlow's SAME padding for convolutions and pools.
//!
//! `total = max((ceil(n / s) - 1) s + k - n, 0)`, half of it rounded down before and the rest after. With
//! stride 2 that depends on the parity of the map, so it is worked out at run time. Pads of zeros for
//! convolutions; pools see only pixels that exist (or count zeros, as timm's average pools do).

use detect::config::Pooling;
use tch::Tensor;

use super::nchw;

/// Padding before and after a side of `n` pixels.
fn padding(n: i64, kernel: i64, stride: i64) -> (i64, i64) {
    let out = (n + stride - 1) / stride;
    let total = ((out - 1) * stride + kernel - n).max(0);
    (total / 2, total - total / 2)
}

/// Pads `xs` with zeros for a SAME operation with `kernel` and `stride` down and across. Gives the map and the symmetric padding that is left for the
/// operation itself: where a side needs the same on both ends nothing is copied.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, H', W']`.
pub fn pad(xs: &Tensor, kernel: [i64; 2], stride: [i64; 2]) -> (Tensor, [i64; 2]) {
    let [_, _, height, width] = nchw(xs);
    let (top, bottom) = padding(height, kernel[0], stride[0]);
    let (left, right) = padding(width, kernel[1], stride[1]);
    if top == bottom && left == right {
        return (xs.shallow_clone(), [top, left]);
    }
    (xs.constant_pad_nd([left, right, top, bottom]), [0, 0])
}

/// The symmetric padding with which a pool of odd `kernel` in ceil mode equals SAME, `None` where there is
/// none. For 3x3 there always is one: 1, but 0 along even sides with stride 2, where the only padding is
/// after the last pixel.
fn pool_padding(xs: &Tensor, kernel: i64, stride: i64) -> Option<[i64; 2]> {
    let [_, _, height, width] = nchw(xs);
    let side = |n: i64| match padding(n, kernel, stride) {
        (before, after) if before == after => Some(before),
        (0, 1) => Some(0),
        _ => None,
    };
    Some([side(height)?, side(width)?])
}

/// Max pool.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, ceil(H / stride), ceil(W / stride)]`.
pub fn max_pool(xs: &Tensor, kernel: i64, stride: i64) -> Tensor {
    // Ceil mode changes nothing with stride 1 or odd sides, whose windows fit exactly.
    if let Some(padding) = pool_padding(xs, kernel, stride) {
        return xs.max_pool2d([kernel, kernel], [stride, stride], padding, [1, 1], true);
    }
    let [_, _, height, width] = nchw(xs);
    let ((top, bottom), (left, right)) =
        (padding(height, kernel, stride), padding(width, kernel, stride));
    // Padding is below every number, rather than 0.
    let padded = xs.pad([left, right, top, bottom], "constant", f64::NEG_INFINITY);
    padded.max_pool2d([kernel, kernel], [stride, stride], [0, 0], [1, 1], false)
}

/// 3x3 average pool. The divisor is the number of pixels that exist, or, with `Pooling::Timm` and
/// stride 2, always 9.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, ceil(H / stride), ceil(W / stride)]`.
pub fn average_pool(xs: &Tensor, stride: i64, pooling: Pooling) -> Tensor {
    if stride == 2 && pooling == Pooling::Timm {
        let (xs, padding) = pad(xs, [3, 3], [2, 2]);
        return xs.avg_pool2d([3, 3], [2, 2], padding, false, true, None::<i64>);
    }
    let padding = pool_padding(xs, 3, stride).expect("3x3 pools need no other padding");
    xs.avg_pool2d([3, 3], [stride, stride], padding, true, false, None::<i64>)
}

/// Every second pixel, from `(offset, offset)` on, as many as SAME with stride 2 gives: past the end of
/// an odd side there are zeros.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, ceil(H / 2), ceil(W / 2)]`.
pub fn every_second_pixel(xs: &Tensor, offset: i64) -> Tensor {
    let [_, _, height, width] = nchw(xs);
    let picked = xs.slice(2, offset, None, 2).slice(3, offset, None, 2);
    let [_, _, h, w] = nchw(&picked);
    let (bottom, right) = ((height + 1) / 2 - h, (width + 1) / 2 - w);
    if bottom == 0 && right == 0 {
        return picked;
    }
    picked.constant_pad_nd([0, right, 0, bottom])
}
