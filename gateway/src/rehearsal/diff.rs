//! Two texts side by side, line by line.

/// A line of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// In both.
    Both(&'a str),
    /// Expected, and not there.
    Expected(&'a str),
    /// There, and not expected.
    Got(&'a str),
}

/// Lines beyond which no common ones are looked for: it would take their product in time.
const LINES_MAX: usize = 2_000;

/// `expected` and `got` as one text: what they have in common once, by their longest common
/// subsequence; of what differs, that which was expected first.
#[must_use]
pub fn unified<'a>(expected: &'a [String], got: &'a [String]) -> Vec<Line<'a>> {
    if expected.len().max(got.len()) > LINES_MAX {
        let expected = expected.iter().map(|line| Line::Expected(line));
        return expected.chain(got.iter().map(|line| Line::Got(line))).collect();
    }
    let common = common(expected, got);
    let (mut e, mut g) = (0, 0);
    let mut lines = Vec::with_capacity(expected.len() + got.len());
    while e < expected.len() || g < got.len() {
        if e < expected.len() && g < got.len() && expected[e] == got[g] {
            lines.push(Line::Both(&expected[e]));
            (e, g) = (e + 1, g + 1);
        } else if g == got.len() || (e < expected.len() && common[e + 1][g] >= common[e][g + 1]) {
            lines.push(Line::Expected(&expected[e]));
            e += 1;
        } else {
            lines.push(Line::Got(&got[g]));
            g += 1;
        }
    }
    lines
}

/// `common[e][g]`: how many lines the rests from there have in common.
fn common(expected: &[String], got: &[String]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; got.len() + 1]; expected.len() + 1];
    for e in (0..expected.len()).rev() {
        for g in (0..got.len()).rev() {
            common[e][g] = match expected[e] == got[g] {
                true => common[e + 1][g + 1] + 1,
                false => common[e + 1][g].max(common[e][g + 1]),
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_there_once_and_in_order() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let (expected, got) = (lines("abcd"), lines("axcye"));
        let shown: String = unified(&expected, &got)
            .iter()
            .map(|line| match line {
                Line::Both(text) => format!(" {text}"),
                Line::Expected(text) => format!("-{text}"),
                Line::Got(text) => format!("+{text}"),
            })
            .collect();
        assert_eq!(shown, " a-b+x c-d+y+e");
        assert!(unified(&[], &[]).is_empty());
    }
}
