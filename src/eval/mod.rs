//! COCO evaluation: the metric itself, and its reports.
