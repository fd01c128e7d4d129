//! What a pass asks of its device.

use super::*;
use detect::config::{NormMode, Rules};
use tch::nn::VarStore;
use tch::{Device, Kind};

use crate::shim::operations_of;

/// Operations of libtorch whose outcome the program has to know, be it a number or how long a list is.
const READ: [&str; 12] = [
    "_local_scalar_dense",
    "_unique2",
    "allclose",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "nonzero_numpy",
    "unique_consecutive",
    "unique_dim",
];

/// Those of [`READ`] that `f` runs, and what it gives.
fn reads_of<T>(f: impl FnOnce() -> T) -> (T, Vec<String>) {
    let (made, names) = operations_of(f);
    assert!(!names.is_empty(), "nothing was seen");
    let reads = |name: &String| READ.iter().any(|read| name.strip_prefix("aten::") == Some(read));
    (made, names.into_iter().filter(reads).collect())
}

#[test]
fn a_training_goes_on_after_images_for_which_memory_ran_out() {
    let _alone = crate::nn::alone();
    let config = Config::recipe("tiny", &[]).unwrap();
    let store = VarStore::new(Device::Cpu);
    let network = FasterRcnn::new(&store.root(), &config, 2);
    let side = 1 << 20;
    let pixels = Tensor::zeros([1, 3, 1, 1], (Kind::Float, Device::Cpu));
    let pixels = pixels.expand([1, 3, side, side], false);
    let images = Images { pixels, sizes: vec![Size::new(side as usize, side as usize)] };
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| network.detect(&images)));
    let reason = detect::failure::out_of_memory(&*panic.unwrap_err()).map(|_| ());
    assert_eq!(reason, Some(()));
    let weight = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    (&weight * 3.).sum(Kind::Float).backward();
    assert_eq!(weight.grad().double_value(&[0]), 3.);
}

#[test]
fn a_pass_that_goes_ahead_reads_nothing_from_its_device() {
    let _alone = crate::nn::alone();
    for rules in [Rules::Torchvision, Rules::Tf] {
        let mut config = Config::recipe("tiny", &[]).unwrap();
        (config.rpn.post_nms_train, config.roi.sampled) = (12, 8);
        (config.backbone.norm, config.backbone.tail_norm) = (NormMode::Live, NormMode::Live);
        // Its seeds are drawn and read, on the CPU.
        config.backbone.drop_path_keep = 1.;
        config.detector.rules = rules;
        if rules == Rules::Tf {
            (config.rpn.pre_nms_train, config.rpn.pre_nms_eval) = (0, 0);
        }
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let network = FasterRcnn::new(&store.root(), &config, 2);
        let pixels = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let images = Images { pixels, sizes: vec![Size::new(64, 64); 2] };
        let truths = [Box2::new(5., 5., 40., 30.), Box2::new(20., 20., 60., 60.)];
        let gt_boxes = truths.map(|b| boxes::to_tensor(&[b]));
        let gt_labels = [0, 1].map(|label| boxes::labels_to_tensor(&[Label(label)]));
        let (mode, draws) = (Mode::Train { progress: 1. }, Draws::Seeds(&[3, 4]));

        // As `drawn` and `counted_losses` do, without what is decided on the CPU: which anchors lie inside, and learn.
        let (map, of_trunk) = reads_of(|| network.backbone.trunk(&images.pixels, mode));
        let rpn = network.anchored(&map, &images, mode);
        let (proposals, of_proposals) =
            reads_of(|| network.family.proposals_ahead(&rpn, &images.sizes).unwrap());
        let ((sampled, held), of_sample) =
            reads_of(|| network.family.sample(&rpn, &proposals, &gt_boxes, &gt_labels, draws));
        let (_losses, of_heads) = reads_of(|| {
            let regions: Vec<Tensor> = sampled.iter().map(|s| s.boxes.shallow_clone()).collect();
            let padded = images.padded();
            let predicted = network.roi.predict(&network.backbone, &map, &regions, padded, mode);
            network.family.roi_losses(&predicted, &sampled)
        });
        let none: Vec<String> = Vec::new();
        assert_eq!([of_trunk, of_proposals, of_sample, of_heads], [(); 4].map(|()| none.clone()));
        assert!(matches!(held, Held::Told(_)));

        // A pass that waits is seen to.
        let proposals = network.family.proposals(&rpn, &images.sizes, mode);
        let (_, reads) =
            reads_of(|| network.family.sample(&rpn, &proposals, &gt_boxes, &gt_labels, draws));
        assert!(reads.contains(&"aten::nonzero".to_owned()), "{reads:?}");
    }
}
