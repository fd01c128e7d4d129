//! What a network costs, counted as the paper's tables are: multiply-adds of convolutions and
//! classifier alone, batch size 1.

use serde::Serialize;

use super::layers::{Layer, LayerKind, Place};
use super::names;
use super::plan::{CONV0, Plan};
use crate::geometry::Size;

/// What a cell costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CellCount {
    /// Published name.
    pub name: String,
    /// Channels of the output.
    pub channels: usize,
    /// Height and width of the output.
    pub size: Size,
    /// Trainable parameters.
    pub parameters: usize,
    /// Running means and variances.
    pub batch_norm_statistics: usize,
    /// Multiply-adds of the convolutions, one image.
    pub multiply_adds: u64,
}

impl CellCount {
    fn new(name: &str, channels: usize, size: Size) -> Self {
        let name = name.to_owned();
        Self { name, channels, size, parameters: 0, batch_norm_statistics: 0, multiply_adds: 0 }
    }

    /// Adds a layer that computes `at` pixels; `None` where the products pass 64 bits, as wide cells of a
    /// user's own do on images of 16,384 pixels.
    fn add(&mut self, layer: &Layer, at: Size) -> Option<()> {
        for (leaf, shape) in layer.tensors() {
            let elements: usize = shape.iter().product();
            if leaf.is_trainable() {
                self.parameters += elements;
            } else {
                self.batch_norm_statistics += elements;
            }
        }
        let products = layer.multiply_adds().checked_mul(at.height)?.checked_mul(at.width)?;
        self.multiply_adds = self.multiply_adds.checked_add(products as u64)?;
        Some(())
    }
}

/// The whole network with a classifier of `classes` outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkCount {
    /// Trainable parameters: convolutions, batch norm's gamma and beta, classifier.
    pub parameters: usize,
    /// The same and the running statistics.
    pub parameters_with_batch_norm_statistics: usize,
    /// Multiply-adds of convolutions and classifier, one image.
    pub multiply_adds: u64,
    /// Stem convolution and cells.
    pub cells: Vec<CellCount>,
    /// The auxiliary head, which is there in training only and counts in none of the sums; `None` where
    /// the image is too small for it.
    pub auxiliary: Option<CellCount>,
}

impl NetworkCount {
    /// Counts `plan` with `classes` outputs for images of `size`; `None` for an image under 3 pixels
    /// (under 1 in the CIFAR form), and for one so large that the multiply-adds pass 64 bits.
    pub fn new(plan: &Plan, size: Size, classes: usize) -> Option<Self> {
        let sizes = plan.sizes(size)?;
        let mut stem = CellCount::new(CONV0, plan.stem_filters, sizes[0]);
        stem.add(&plan.stem(), sizes[0])?;
        let mut cells = vec![stem];
        for (i, site) in plan.cells.iter().enumerate() {
            let (input, output) = (sizes[site.current.0], sizes[i + 1]);
            let mut cell = CellCount::new(&site.name, site.out_channels(), output);
            for layer in site.layers() {
                // `H` and `P` are fitted at the size of `H`.
                let fits = matches!(layer.place, Place::Current | Place::Previous);
                cell.add(&layer, if fits { input } else { output })?;
            }
            cells.push(cell);
        }
        let mut classifier = CellCount::new(names::CLASSIFIER, classes, Size::new(1, 1));
        classifier.add(&plan.classifier(classes), Size::new(1, 1))?;
        let all = || cells.iter().chain([&classifier]);
        let parameters = all().map(|c| c.parameters).sum::<usize>();
        let statistics = all().map(|c| c.batch_norm_statistics).sum::<usize>();
        let multiply_adds = all().try_fold(0_u64, |sum, c| sum.checked_add(c.multiply_adds))?;
        Some(Self {
            parameters,
            parameters_with_batch_norm_statistics: parameters + statistics,
            multiply_adds,
            auxiliary: auxiliary(plan, &sizes, classes),
            cells,
        })
    }
}

/// The auxiliary head on the last normal cell before the second reduction.
fn auxiliary(plan: &Plan, sizes: &[Size], classes: usize) -> Option<CellCount> {
    let layers = plan.auxiliary(sizes[plan.auxiliary_map().0], classes)?;
    let mut count = CellCount::new(names::AUXILIARY, classes, Size::new(1, 1));
    for layer in &layers {
        // The second convolution covers all that the pool left.
        let side = match (layer.place, layers[1].kind) {
            (Place::Auxiliary(0), LayerKind::Convolution { kernel, .. }) => kernel,
            _ => 1,
        };
        count.add(layer, Size::new(side, side))?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nasnet::name::Form;
    use crate::nasnet::plan::{Wiring, published_stem_filters};
    use crate::nasnet::{BackboneName, genotype::Cells};

    fn count(name: BackboneName, side: usize, classes: usize) -> NetworkCount {
        NetworkCount::new(&Plan::published(name), Size::new(side, side), classes).unwrap()
    }

    #[test]
    fn the_paper_s_networks_have_the_paper_s_counts() {
        // Trainable, with statistics, multiply-adds, auxiliary head: counted by an independent model
        // of TF-slim's code; timm and Cadene's networks agree on the first.
        let cases = [
            (BackboneName::LARGE, 331, 1000, [88_753_150, 88_949_818, 23_783_414_658, 4_567_784]),
            (BackboneName::LARGE, 331, 1001, [88_757_183, 88_953_851, 23_783_418_690, 4_568_553]),
            (BackboneName::MOBILE, 224, 1000, [5_289_978, 5_326_716, 563_638_816, 2_411_240]),
            (BackboneName::MOBILE, 224, 1001, [5_291_035, 5_327_773, 563_639_872, 2_412_009]),
            (
                BackboneName::a(6, 768, Form::Cifar),
                32,
                10,
                [3_346_538, 3_383_786, 544_333_312, 1_631_498],
            ),
        ];
        for (name, side, classes, expected) in cases {
            let c = count(name, side, classes);
            let got = [
                c.parameters,
                c.parameters_with_batch_norm_statistics,
                c.multiply_adds as usize,
                c.auxiliary.unwrap().parameters,
            ];
            assert_eq!(got, expected, "{name} with {classes} classes");
        }
    }

    #[test]
    fn the_other_rows_of_the_paper_have_the_counts_of_an_independent_model() {
        let cases = [
            (
                BackboneName::a(7, 2304, Form::Cifar),
                32,
                10,
                [32_590_954, 32_718_826, 5_151_250_944],
            ),
            (
                BackboneName::a(5, 1536, Form::ImageNet),
                299,
                1000,
                [12_247_544, 12_311_704, 2_552_240_432],
            ),
            (
                BackboneName::a(5, 1536, Form::Strided),
                299,
                1000,
                [10_899_288, 10_956_888, 2_351_618_608],
            ),
            (
                BackboneName::a(7, 1920, Form::ImageNet),
                299,
                1000,
                [24_595_884, 24_702_948, 5_226_678_524],
            ),
            (
                BackboneName::a(7, 1920, Form::Strided),
                299,
                1000,
                [22_531_764, 22_630_628, 4_929_313_484],
            ),
        ];
        for (name, side, classes, expected) in cases {
            let c = count(name, side, classes);
            let got =
                [c.parameters, c.parameters_with_batch_norm_statistics, c.multiply_adds as usize];
            assert_eq!(got, expected, "{name}");
        }
        // The stem's width changes the CIFAR rows.
        let cifar = |name, stem| {
            let plan = Plan::new(name, Wiring::Mobile, stem, &Cells::A).unwrap();
            NetworkCount::new(&plan, Size::new(32, 32), 10).unwrap().parameters
        };
        assert_eq!(cifar(BackboneName::a(6, 768, Form::Cifar), 32), 3_318_058);
        assert_eq!(cifar(BackboneName::a(7, 2304, Form::Cifar), 96), 32_364_202);
        assert_eq!(published_stem_filters(BackboneName::a(7, 2304, Form::Cifar)), 288);
        // The search's own networks: two cells a stage, 32 filters.
        let child = count(BackboneName::a(2, 768, Form::Cifar), 32, 10);
        assert_eq!(child.parameters, 1_294_698);
    }
}
