//! Columns that line up. Knows nothing of what is in them.

/// Spaces between two columns.
const GAP: usize = 2;

/// Writes rows of equally many cells, each column as wide as its widest cell, every line ended by a line feed.
///
/// Trailing spaces are left out. Widths are counted in characters.
pub fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - cell.chars().count() + GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A value as JSON for people and programs, ended by a line feed.
pub fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("rows of strings and numbers are always JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_ends() {
        let rows = [["a", "bb", ""], ["äää", "", "c"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "a    bb\näää      c\n");
        assert_eq!(aligned::<2>(&[]), "");
    }
}
