//! PDF output: one page of text.

use std::fmt::Write as _;

/// A one-page PDF of `lines`; the first line is larger. Characters other than printable ASCII are omitted.
pub(super) fn page(lines: &[String]) -> Vec<u8> {
    let mut text = String::from("BT /F1 16 Tf 56 780 Td 16 TL\n");
    for (index, line) in lines.iter().enumerate() {
        if index == 1 {
            text.push_str("/F1 10 Tf\n");
        }
        let shown: String = line.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).collect();
        let escaped = shown.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
        let _ = writeln!(text, "({escaped}) Tj T*");
    }
    text.push_str("ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{text}\nendstream", text.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
    ];
    let mut file = String::from("%PDF-1.4\n");
    let mut table = String::from("0000000000 65535 f \n");
    for (number, object) in (1..).zip(&objects) {
        let _ = writeln!(table, "{:010} 00000 n ", file.len());
        let _ = write!(file, "{number} 0 obj\n{object}\nendobj\n");
    }
    let start = file.len();
    let size = objects.len() + 1;
    let _ = write!(file, "xref\n0 {size}\n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n");
    file.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_xref_table_points_at_every_object() {
        let file = String::from_utf8(page(&["A (title)".to_owned(), "a line".to_owned()])).unwrap();
        let start: usize = file.split("startxref\n").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let entries: Vec<&str> = file[start..].lines().skip(3).take(5).collect();
        for (number, entry) in (1..).zip(entries) {
            assert_eq!(entry.len(), 19, "{entry:?}");
            let at: usize = entry[..10].parse().unwrap();
            assert!(file[at..].starts_with(&format!("{number} 0 obj\n")), "{entry}");
        }
        assert!(file.contains("(A \\(title\\)) Tj"));
    }
}
