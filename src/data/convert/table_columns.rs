//! Which column of a table is what: by the names in its first row, or as `RetinaNet` has them.

/// Of a first row this many cells are told.
const TOLD: usize = 12;

/// Where a row has what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Columns {
    /// How many there are.
    pub(super) count: usize,
    pub(super) file: usize,
    /// Corners, or left, top, width and height.
    pub(super) sides: [usize; 4],
    pub(super) corners: bool,
    pub(super) class: usize,
    /// Width and height of the image.
    pub(super) size: Option<[usize; 2]>,
    pub(super) split: Option<usize>,
    pub(super) header: bool,
}

impl Columns {
    /// Those of a table with this first row.
    ///
    /// # Errors
    /// What the row lacks, and what is there.
    pub(super) fn of(row: &csv::StringRecord) -> Result<Self, String> {
        headed(row).or_else(|missing| {
            bare(row).ok_or_else(|| {
                let mut cells: Vec<&str> = row.iter().take(TOLD).collect();
                if row.len() > TOLD {
                    cells.push("...");
                }
                format!(
                    "no column for {}, and no first row path,x1,y1,x2,y2,class; the first row is {}",
                    missing.join(", "),
                    cells.join(",")
                )
            })
        })
    }
}

/// Columns by the names in the first row, or which are missing.
fn headed(row: &csv::StringRecord) -> Result<Columns, Vec<&'static str>> {
    let plain = |name: &str| -> String {
        name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect()
    };
    let names: Vec<String> = row.iter().map(plain).collect();
    let find = |wanted: &[&str]| wanted.iter().find_map(|w| names.iter().position(|n| n == w));
    let file = find(&[
        "filename",
        "file",
        "image",
        "imagename",
        "imagefile",
        "imagepath",
        "path",
        "filepath",
        "img",
        "imageid",
        "imgname",
    ]);
    let class =
        find(&["class", "label", "name", "classname", "category", "labelname", "categoryname"]);
    let (Some(file), Some(class), Some(BoxColumns { sides, corners, size })) =
        (file, class, BoxColumns::of(&find))
    else {
        let all = [
            ("the file (filename, image, path)", file.is_none()),
            ("the class (class, label, category)", class.is_none()),
            ("the box (xmin ymin xmax ymax, or x y w h)", BoxColumns::of(&find).is_none()),
        ];
        return Err(all.into_iter().filter_map(|(name, lacks)| lacks.then_some(name)).collect());
    };
    let split = find(&["split", "subset", "set", "usage"]);
    Ok(Columns { count: row.len(), file, sides, corners, class, size, split, header: true })
}

/// The columns of boxes, and of the sizes of images beside them.
struct BoxColumns {
    sides: [usize; 4],
    corners: bool,
    size: Option<[usize; 2]>,
}

impl BoxColumns {
    /// By a function that finds the first of several names.
    fn of(find: &dyn Fn(&[&str]) -> Option<usize>) -> Option<Self> {
        let four = |wanted: [&[&str]; 4]| -> Option<[usize; 4]> {
            let [a, b, c, d] = wanted.map(find);
            Some([a?, b?, c?, d?])
        };
        let pair = |width: &str, height: &str| Some([find(&[width])?, find(&[height])?]);
        let image_size =
            pair("imagewidth", "imageheight").or_else(|| pair("imgwidth", "imgheight"));
        let size = image_size.or_else(|| pair("width", "height"));
        let corners = four([
            &["xmin", "x1", "left", "bboxxmin", "bboxx1"],
            &["ymin", "y1", "top", "bboxymin", "bboxy1"],
            &["xmax", "x2", "right", "bboxxmax", "bboxx2"],
            &["ymax", "y2", "bottom", "bboxymax", "bboxy2"],
        ]);
        if let Some(sides) = corners {
            return Some(Self { sides, corners: true, size });
        }
        let left_top: [&[&str]; 2] =
            [&["x", "bboxx", "xmin", "left"], &["y", "bboxy", "ymin", "top"]];
        let own: [&[&str]; 2] =
            [&["w", "bboxwidth", "bboxw", "boxwidth"], &["h", "bboxheight", "bboxh", "boxheight"]];
        if let Some(sides) = four([left_top[0], left_top[1], own[0], own[1]]) {
            return Some(Self { sides, corners: false, size });
        }
        // Then width and height are the box's.
        let sides = four([left_top[0], left_top[1], &["width"], &["height"]])?;
        Some(Self { sides, corners: false, size: image_size })
    }
}

/// `RetinaNet`'s columns, if a first row without a header has them.
fn bare(row: &csv::StringRecord) -> Option<Columns> {
    let cells: Vec<&str> = row.iter().collect();
    let &[path, ref sides @ .., class] = &cells[..] else { return None };
    let empty = class.is_empty() && sides.iter().all(|s| s.is_empty());
    let numbers = !class.is_empty() && sides.iter().all(|s| s.parse::<f64>().is_ok());
    (sides.len() == 4 && !path.is_empty() && (empty || numbers)).then_some(Columns {
        count: row.len(),
        file: 0,
        sides: [1, 2, 3, 4],
        corners: true,
        class: 5,
        size: None,
        split: None,
        header: false,
    })
}
