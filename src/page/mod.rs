//! Pages: what they have in common, so that all look alike. A page loads nothing from anywhere (its content
//! security policy forbids it) and needs no script; a small one sorts the tables where scripts run.
//!
//! [`svg`] has the plots.

pub(crate) mod svg;

use std::fmt::Write as _;

/// Most characters of a name beside a plot; the whole name is in the tooltip.
const LABEL: usize = 20;
const STYLE: &str = "
:root{color-scheme:light;--ink:#1d2530;--soft:#5d6875;--rule:#d9dee4;--blue:#1f5fbf;--red:#c2410c;--green:#15803d}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:#fff;max-width:1080px;margin:0 auto;padding:24px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:20px;margin:36px 0 8px;border-top:1px solid var(--rule);padding-top:20px}
p{margin:6px 0;max-width:75ch}.soft{color:var(--soft)}.warn{border-left:4px solid var(--red);padding-left:10px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(400px,1fr));gap:20px}figure{margin:0}
figcaption{font-weight:600;margin-bottom:4px}.scroll{overflow-x:auto}
svg{width:100%;height:auto;font-size:12px}svg text{fill:var(--ink)}.heat{font-size:10px}.wide{max-width:860px}
.mid{text-anchor:middle}.end{text-anchor:end}.strong{font-weight:600}svg .light{fill:#fff}
.grid{stroke:var(--rule);fill:none}.frame{stroke:var(--soft);fill:none}.zero{stroke:var(--soft);stroke-dasharray:3 3}
.line{fill:none;stroke-linejoin:round}.all{stroke:var(--blue);stroke-width:2.5}.one{stroke:#8b96a3;stroke-width:1;opacity:.45}
.one:hover{stroke:var(--red);stroke-width:2.5;opacity:1}.first-line{stroke:var(--green);stroke-width:1.5;stroke-dasharray:5 3}
.second-line{stroke:var(--red);stroke-width:1.5;stroke-dasharray:2 3}
.mark{fill:var(--red)}.bar{fill:var(--blue)}.less{fill:var(--red)}.right{fill:var(--blue)}.wrong{fill:var(--red)}
.open path{stroke:#8b96a3;stroke-width:2}.open circle{fill:#8b96a3}.first path{stroke:var(--green);stroke-width:2}
.first circle{fill:var(--green)}.second path{stroke:var(--red);stroke-width:2}.second circle{fill:var(--red)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:3px 10px;text-align:right;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid var(--soft);white-space:nowrap}
td{overflow-wrap:break-word}.meanings td{text-align:left}.meanings th{text-align:left}.spark{width:62px;height:22px;vertical-align:middle}
.sorts th{cursor:pointer}.sorts th[aria-sort]::after{content:' \\25be'}.sorts th[aria-sort=ascending]::after{content:' \\25b4'}
.run0{stroke:#1f5fbf;stroke-width:2}.run1{stroke:#c2410c;stroke-width:2}.run2{stroke:#15803d;stroke-width:2}.run3{stroke:#7e22ce;stroke-width:2}.run4{stroke:#a16207;stroke-width:2}.run5{stroke:#0e7490;stroke-width:2}
.faint{stroke-width:1;opacity:.25}.legend span{margin-right:16px;white-space:nowrap}.key{width:22px;height:8px}
h3{font-size:16px;margin:14px 0 6px}pre{font-size:13px;overflow-x:auto;background:#f6f7f9;padding:10px}summary{cursor:pointer}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:14px}.sample figcaption{font-weight:400;font-size:13px}
.sample rect{fill:none;stroke-width:2}.sample text{fill:#fff;font-size:11px;paint-order:stroke;stroke:#000;stroke-width:2.5px}
.hit rect{stroke:#22c55e}.false rect{stroke:#ef4444}.found rect{stroke:#fff;stroke-width:1}.lost rect{stroke:#facc15;stroke-dasharray:5 3}
.hit-ink{color:#15803d}.false-ink{color:#dc2626}.lost-ink{color:#a16207}
";
const SCRIPT: &str = "
for(const table of document.querySelectorAll('table.sort')){table.classList.add('sorts');
const heads=[...table.tHead.rows[0].cells];heads.forEach((head,i)=>head.addEventListener('click',()=>{
const down=head.getAttribute('aria-sort')!=='descending';heads.forEach(h=>h.removeAttribute('aria-sort'));
head.setAttribute('aria-sort',down?'descending':'ascending');const body=table.tBodies[0];
const key=row=>row.cells[i].textContent;const number=row=>{const x=parseFloat(key(row));return isNaN(x)?-Infinity:x};
const text=[...body.rows].every(row=>isNaN(parseFloat(key(row))));
[...body.rows].sort((a,b)=>(text?key(b).localeCompare(key(a)):number(b)-number(a))*(down?1:-1)).forEach(row=>body.append(row))}))}
";

/// The beginning of a page, up to its heading; `title` is plain text.
pub(crate) fn begin(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n"
    )
}

/// The end of a page.
pub(crate) fn end(html: &mut String) {
    add!(html, "<script>{SCRIPT}</script>\n</body>\n</html>\n");
}

/// -1 stands for "no truth to measure by".
pub(crate) fn number(value: f64) -> String {
    if value < 0. { "–".to_owned() } else { format!("{value:.3}") }
}

/// A table of cells that are HTML already; with the class `sort` it is sorted by a click on a heading.
pub(crate) fn table(
    html: &mut String,
    class: &str,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) {
    add!(html, "<div class=\"scroll\"><table class=\"{class}\"><thead><tr>");
    for cell in head {
        add!(html, "<th scope=\"col\">{cell}</th>");
    }
    html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            add!(html, "<td>{cell}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
}

/// A name without characters that would move the cursor.
pub(crate) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Text as it may stand between tags and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A name beside a plot, cut where it is long.
pub(crate) fn label(name: &str) -> String {
    if name.chars().count() <= LABEL {
        return escape(name);
    }
    let cut: String = name.chars().take(LABEL - 1).collect();
    format!("{}…", escape(&cut))
}

/// Adds a piece of text; writing to a text can't fail.
macro_rules! add {
    ($to:expr, $($piece:tt)*) => {
        write!($to, $($piece)*).expect("a String takes everything")
    };
}
pub(crate) use add;

/// Goes through all tags: each is closed in its order, each attribute is quoted. Gives the names of
/// the tags, and of the attributes.
#[cfg(test)]
pub(crate) fn parsed(html: &str) -> (Vec<String>, Vec<String>) {
    let (mut open, mut tags, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("it is there");
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag is closed");
        let tag = &rest[start + 1..end];
        assert!(!rest[..start].contains('>'), "a loose > before <{tag}>");
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        let inner = tag[name.len()..].trim_end_matches('/');
        let quoted: Vec<&str> = inner.split('"').collect();
        assert!(quoted.len() % 2 == 1, "quotes of <{tag}>");
        for part in quoted.iter().step_by(2).map(|part| part.trim()).filter(|p| !p.is_empty()) {
            let attribute = part.strip_suffix('=').expect("an attribute has a quoted value");
            attributes.push(attribute.to_owned());
        }
        if name == "style" || name == "script" {
            let end = rest.find(&format!("</{name}>")).expect("it is there");
            rest = &rest[end + name.len() + 3..];
        } else if !tag.ends_with('/') && name != "meta" {
            open.push(name.clone());
        }
        tags.push(name);
    }
    assert!(open.is_empty(), "{open:?} are open at the end");
    (tags, attributes)
}
