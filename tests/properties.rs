//! What must hold for every box and every list of boxes.

use detect::geometry::{Box2, Size};
use detect::nms::{batched_nms, nms};
use proptest::prelude::*;

fn a_box() -> impl Strategy<Value = Box2> {
    (0_u16..100, 0_u16..100, 1_u16..60, 1_u16..60).prop_map(|(x, y, w, h)| {
        let [x, y, w, h] = [x, y, w, h].map(f32::from);
        Box2::new(x, y, x + w, y + h)
    })
}

/// Boxes with scores, few enough different ones that ties occur.
fn scored() -> impl Strategy<Value = Vec<(Box2, f32)>> {
    prop::collection::vec((a_box(), (0_u8..20).prop_map(|s| f32::from(s) / 20.)), 0..60)
}

/// The definition, read literally: a box is kept when no better kept one overlaps it by more.
fn by_definition(boxes: &[Box2], scores: &[f32], threshold: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.iter().all(|&k| f64::from(boxes[k].iou(boxes[i])) <= threshold) {
            kept.push(i);
        }
    }
    kept
}

proptest! {
    #[test]
    fn iou_is_symmetric_and_between_0_and_1(a in a_box(), b in a_box()) {
        let iou = a.iou(b);
        prop_assert_eq!(iou, b.iou(a));
        prop_assert!((0. ..=1.).contains(&iou));
        prop_assert_eq!(a.iou(a), 1.);
    }

    #[test]
    fn a_clipped_box_lies_inside_and_is_not_clipped_again(a in a_box(), h in 1_usize..90, w in 1_usize..90) {
        let size = Size::new(h, w);
        let clipped = a.clipped(size);
        prop_assert!(clipped.x1 >= 0. && clipped.x2 <= w as f32 && clipped.y2 <= h as f32);
        prop_assert_eq!(clipped.clipped(size), clipped);
    }

    #[test]
    fn nms_is_its_definition(items in scored(), threshold in 0_u8..=10) {
        let threshold = f64::from(threshold) / 10.;
        let (boxes, scores): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        prop_assert_eq!(nms(&boxes, &scores, threshold), by_definition(&boxes, &scores, threshold));
    }

    #[test]
    fn nms_of_what_it_kept_keeps_it_all(items in scored()) {
        let (boxes, scores): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        let kept = nms(&boxes, &scores, 0.5);
        let pick = |of: &[f32]| kept.iter().map(|&i| of[i]).collect::<Vec<_>>();
        let kept_boxes: Vec<Box2> = kept.iter().map(|&i| boxes[i]).collect();
        prop_assert_eq!(nms(&kept_boxes, &pick(&scores), 0.5).len(), kept.len());
    }

    #[test]
    fn groups_are_suppressed_each_by_itself(items in scored(), groups in prop::collection::vec(0_usize..3, 60)) {
        let (boxes, scores): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        let groups = &groups[..boxes.len()];
        let mut expected = Vec::new();
        for group in 0..3 {
            let members: Vec<usize> = (0..boxes.len()).filter(|&i| groups[i] == group).collect();
            let of: Vec<Box2> = members.iter().map(|&i| boxes[i]).collect();
            let with: Vec<f32> = members.iter().map(|&i| scores[i]).collect();
            expected.extend(nms(&of, &with, 0.5).into_iter().map(|i| members[i]));
        }
        let found = batched_nms(&boxes, &scores, groups, 0.5);
        prop_assert!(found.windows(2).all(|w| scores[w[0]] >= scores[w[1]]), "best first");
        let mut found = found;
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
