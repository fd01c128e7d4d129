//! The published names of NASNet's tensors: timm's (and Cadene's), which our own files use too.
//!
//! The grammar is in one place so that every reader and executor agrees on it.

use super::plan::Site;

/// The stem convolution.
pub const CONV0: &str = "conv0";
/// The classifier.
pub const CLASSIFIER: &str = "last_linear";

/// The module of one operation, `comb_iter_<row>_<left|right>`, with its cell in front.
pub fn operation(site: &Site, row: usize, side: usize) -> String {
    let side = ["left", "right"][side];
    format!("{}.comb_iter_{row}_{side}", site.name)
}

/// The projection of `H`: `<cell>.conv_1x1`, holding `conv` and `bn`.
pub fn current(site: &Site) -> String {
    format!("{}.conv_1x1", site.name)
}

/// The projection of `P`: `<cell>.conv_prev_1x1`, holding `conv` and `bn`.
pub fn previous(site: &Site) -> String {
    format!("{}.conv_prev_1x1", site.name)
}

/// The two paths of the factorized reduction of `P`, and the batch norm over both.
pub fn factorized(site: &Site) -> ([String; 2], String) {
    let path = |n| format!("{}.path_{n}.conv", site.name);
    ([path(1), path(2)], format!("{}.final_path_bn", site.name))
}

/// Half `half` (0 or 1) of a separable operation: depthwise and pointwise convolution, batch norm.
pub fn separable(operation: &str, half: usize) -> [String; 3] {
    let n = half + 1;
    [
        format!("{operation}.separable_{n}.depthwise_conv2d"),
        format!("{operation}.separable_{n}.pointwise_conv2d"),
        format!("{operation}.bn_sep_{n}"),
    ]
}
