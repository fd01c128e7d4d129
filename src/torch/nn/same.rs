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

/// Pads `xs` with zeros for a SAME operation. Gives the map and the symmetric padding that is left for the
/// operation itself: where a side needs the same on both ends nothing is copied.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, H', W']`.
pub fn pad(xs: &Tensor, kernel: i64, stride: i64) -> (Tensor, [i64; 2]) {
    let [_, _, height, width] = nchw(xs);
    let (top, bottom) = padding(height, kernel, stride);
    let (left, right) = padding(width, kernel, stride);
    if top == bottom && left == right {
        return (xs.shallow_clone(), [top, left]);
    }
    (xs.constant_pad_nd([left, right, top, bottom]), [0, 0])
}

/// The symmetric padding with which a 3x3 pool in ceil mode equals SAME: 1, but 0 along even sides
/// with stride 2, where the only padding is after the last pixel.
fn pool_padding(xs: &Tensor, stride: i64) -> [i64; 2] {
    let [_, _, height, width] = nchw(xs);
    let side = |n: i64| i64::from(stride == 1 || n % 2 == 1);
    [side(height), side(width)]
}

/// 3x3 max pool.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, ceil(H / stride), ceil(W / stride)]`.
pub fn max_pool(xs: &Tensor, stride: i64) -> Tensor {
    // Ceil mode changes nothing with stride 1 or odd sides, whose windows fit exactly.
    xs.max_pool2d([3, 3], [stride, stride], pool_padding(xs, stride), [1, 1], true)
}

/// 3x3 average pool. The divisor is the number of pixels that exist, or, with `Pooling::Timm` and
/// stride 2, always 9.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, ceil(H / stride), ceil(W / stride)]`.
pub fn average_pool(xs: &Tensor, stride: i64, pooling: Pooling) -> Tensor {
    if stride == 2 && pooling == Pooling::Timm {
        let (xs, padding) = pad(xs, 3, 2);
        return xs.avg_pool2d([3, 3], [2, 2], padding, false, true, None::<i64>);
    }
    xs.avg_pool2d([3, 3], [stride, stride], pool_padding(xs, stride), true, false, None::<i64>)
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
