//! The cells that the search found (Zoph et al. 2018, Figure 4), as two tables.
//!
//! `H` is this cell's input and `P` the one before it, both fitted to the cell's width; `S(n)` is the
//! sum of row `n`. A row adds two operations; the rows named in `concat` are joined by channels in that
//! order. The literal rule of the paper (join what no row consumed) would leave out `P` in the normal
//! cell and `S(1)` in the reduction cell; the released weights have both.

use std::borrow::Cow;

use State::{H, P, S};

/// What an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The output of the previous cell.
    H,
    /// The output of the cell before that.
    P,
    /// The sum of an earlier row of this cell.
    S(usize),
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Twice (ReLU, depthwise `kernel` x `kernel`, pointwise, batch norm).
    Separable {
        /// Side of the depthwise kernel.
        kernel: usize,
    },
    /// 3x3 average pool over the pixels that exist.
    Average,
    /// 3x3 max pool.
    Max,
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

/// A cell: rows of two operations each, and the states that are joined at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genotype {
    /// `[left, right]` of each row.
    pub sums: Cow<'static, [[Op; 2]]>,
    /// What the output is made of, in channel order.
    pub concat: Cow<'static, [State]>,
}

/// NASNet-A's normal cell: keeps the size, gives 6 times its width in channels.
pub const NORMAL: Genotype = Genotype {
    sums: Cow::Borrowed(&[
        [separable(5, H), separable(3, P)],
        [separable(5, P), separable(3, P)],
        [average(H), identity(P)],
        [average(P), average(P)],
        [separable(3, H), identity(H)],
    ]),
    concat: Cow::Borrowed(&[P, S(0), S(1), S(2), S(3), S(4)]),
};

/// NASNet-A's reduction cell: halves the size, gives 4 times its width in channels.
pub const REDUCTION: Genotype = Genotype {
    sums: Cow::Borrowed(&[
        [separable(5, H), separable(7, P)],
        [max(H), separable(7, P)],
        [average(H), separable(5, P)],
        [identity(S(1)), average(S(0))],
        [separable(3, S(0)), max(H)],
    ]),
    concat: Cow::Borrowed(&[S(1), S(2), S(3), S(4)]),
};

const fn separable(kernel: usize, input: State) -> Op {
    Op { kind: OpKind::Separable { kernel }, input }
}
const fn average(input: State) -> Op {
    Op { kind: OpKind::Average, input }
}
const fn max(input: State) -> Op {
    Op { kind: OpKind::Max, input }
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
        let flat: Vec<Op> = genotype.sums.iter().flatten().copied().collect();
        assert_eq!(flat.len(), 10);
        for (op, (name, &input)) in
            flat.iter().zip(published.operations.iter().zip(&published.inputs))
        {
            let kind = match *name {
                "avg" => OpKind::Average,
                "max" => OpKind::Max,
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
