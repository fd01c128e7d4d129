//! The cells that the search found (Zoph et al. 2018, Figure 4), as two tables.
//!
//! `H` is this cell's input and `P` the one before it, both fitted to the cell's width; `S(n)` is what
//! row `n` makes. A row combines two operations; the states named in `concat` are joined by channels in
//! that order. The literal rule of the paper (join what no row consumed) would leave out `P` in the
//! normal cell and `S(1)` in the reduction cell; the released weights have both.

use std::borrow::Cow;

use State::{H, P, S};

/// What an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The output of the previous cell.
    H,
    /// The output of the cell before that.
    P,
    /// What an earlier row of this cell made.
    S(usize),
}

/// What an operation does: the search space of the paper (Appendix A.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Twice (ReLU, depthwise `kernel` x `kernel`, pointwise, batch norm).
    Separable {
        /// Side of the depthwise kernel: 3, 5 or 7.
        kernel: usize,
    },
    /// ReLU, `kernel` x `kernel` convolution, batch norm.
    Convolution {
        /// Side of the kernel: 1 or 3.
        kernel: usize,
        /// Distance of the kernel's taps: 1, or 2 for the dilated convolution.
        dilation: usize,
    },
    /// ReLU, 1 x `kernel` then `kernel` x 1 convolution, batch norm.
    Split {
        /// Length of both kernels: 3 or 7.
        kernel: usize,
    },
    /// 3x3 average pool over the pixels that exist.
    Average,
    /// Max pool.
    Max {
        /// Side of the window: 3, 5 or 7.
        kernel: usize,
    },
    /// Nothing.
    Identity,
}

/// One edge of the cell: an operation and what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Op {
    /// What it does.
    pub kind: OpKind,
    /// What it reads.
    pub input: State,
}

/// How a row's two operations become one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Combine {
    /// Their sum.
    Add,
    /// One after the other by channels: twice as wide.
    Concat,
    /// Their sum after layer norm, over all channels and pixels of an image (Appendix B of the paper).
    AddLayerNorm,
    /// Their sum after instance norm, over the pixels of a channel (Appendix B).
    AddInstanceNorm,
}

/// A row of the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Left and right.
    pub ops: [Op; 2],
    /// What is made of them.
    pub combine: Combine,
}

/// A cell: rows of two operations each, and the states that are joined at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genotype {
    /// In the order of computation.
    pub rows: Cow<'static, [Row]>,
    /// What the output is made of, in channel order.
    pub concat: Cow<'static, [State]>,
}

/// NASNet-A's normal cell: keeps the size, gives 6 times its width in channels.
pub const NORMAL: Genotype = Genotype {
    rows: Cow::Borrowed(&[
        add(separable(5, H), separable(3, P)),
        add(separable(5, P), separable(3, P)),
        add(average(H), identity(P)),
        add(average(P), average(P)),
        add(separable(3, H), identity(H)),
    ]),
    concat: Cow::Borrowed(&[P, S(0), S(1), S(2), S(3), S(4)]),
};

/// NASNet-A's reduction cell: halves the size, gives 4 times its width in channels.
pub const REDUCTION: Genotype = Genotype {
    rows: Cow::Borrowed(&[
        add(separable(5, H), separable(7, P)),
        add(max(H), separable(7, P)),
        add(average(H), separable(5, P)),
        add(identity(S(1)), average(S(0))),
        add(separable(3, S(0)), max(H)),
    ]),
    concat: Cow::Borrowed(&[S(1), S(2), S(3), S(4)]),
};

/// The two cells of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells {
    /// Keeps the size.
    pub normal: Genotype,
    /// Halves it.
    pub reduction: Genotype,
}

impl Cells {
    /// NASNet-A's.
    pub const A: Self = Self { normal: NORMAL, reduction: REDUCTION };
}

const fn add(left: Op, right: Op) -> Row {
    Row { ops: [left, right], combine: Combine::Add }
}
const fn separable(kernel: usize, input: State) -> Op {
    Op { kind: OpKind::Separable { kernel }, input }
}
const fn average(input: State) -> Op {
    Op { kind: OpKind::Average, input }
}
const fn max(input: State) -> Op {
    Op { kind: OpKind::Max { kernel: 3 }, input }
}
const fn identity(input: State) -> Op {
    Op { kind: OpKind::Identity, input }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flat lists of TF-slim's `nasnet.py`: operations, `hiddenstate_indices` and
    /// `used_hiddenstates`, where 0 is `H`, 1 is `P` and 2.. are the sums.
    struct Published {
        operations: [&'static str; 10],
        inputs: [usize; 10],
        used: [usize; 7],
    }

    const SLIM_NORMAL: Published = Published {
        operations: ["sep5", "sep3", "sep5", "sep3", "avg", "none", "avg", "avg", "sep3", "none"],
        inputs: [0, 1, 1, 1, 0, 1, 1, 1, 0, 0],
        used: [1, 0, 0, 0, 0, 0, 0],
    };
    const SLIM_REDUCTION: Published = Published {
        operations: ["sep5", "sep7", "max", "sep7", "avg", "sep5", "none", "avg", "sep3", "max"],
        inputs: [0, 1, 0, 1, 0, 1, 3, 2, 2, 0],
        used: [1, 1, 1, 0, 0, 0, 0],
    };

    fn state(index: usize) -> State {
        match index {
            0 => H,
            1 => P,
            n => S(n - 2),
        }
    }

    fn check(genotype: &Genotype, published: &Published) {
        assert!(genotype.rows.iter().all(|row| row.combine == Combine::Add));
        let flat: Vec<Op> = genotype.rows.iter().flat_map(|row| row.ops).collect();
        assert_eq!(flat.len(), 10);
        for (op, (name, &input)) in
            flat.iter().zip(published.operations.iter().zip(&published.inputs))
        {
            let kind = match *name {
                "avg" => OpKind::Average,
                "max" => OpKind::Max { kernel: 3 },
                "none" => OpKind::Identity,
                sep => OpKind::Separable { kernel: sep[3..].parse().unwrap() },
            };
            assert_eq!(*op, Op { kind, input: state(input) });
        }
        let unused: Vec<State> = (0..7).filter(|&i| published.used[i] == 0).map(state).collect();
        assert_eq!(genotype.concat.as_ref(), unused);
    }

    #[test]
    fn the_tables_are_the_published_lists() {
        check(&NORMAL, &SLIM_NORMAL);
        check(&REDUCTION, &SLIM_REDUCTION);
    }
}
