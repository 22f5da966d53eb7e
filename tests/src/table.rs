//! Rows of text, aligned for people.

/// Aligns rows in columns; the first `left` columns to the left, the others to the right.
#[must_use]
pub fn aligned<C: AsRef<str>>(rows: &[impl AsRef<[C]>], left: usize) -> String {
    let length = |cell: &C| cell.as_ref().chars().count();
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.as_ref().get(column)).map(length).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, (cell, &width)) in row.as_ref().iter().zip(&widths).enumerate() {
            let cell = cell.as_ref();
            line += &if column < left { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["way", "s"], vec!["direct", "10.0"], vec!["mesh"]];
        assert_eq!(aligned(&rows, 1), "  way        s\n  direct  10.0\n  mesh\n");
    }
}
