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
    /// So many lines that are in both, and far from anything that differs.
    Alike(usize),
}

/// Lines beyond which no common ones are looked for: it would take their product in time.
const LINES_MAX: usize = 2_000;

/// `expected` and `got` as one text: what they have in common once, by their longest common
/// subsequence, where it is near to what differs; of that, what was expected comes first.
#[must_use]
pub fn unified<'a>(expected: &'a [String], got: &'a [String]) -> Vec<Line<'a>> {
    if expected.len().max(got.len()) > LINES_MAX {
        let expected = expected.iter().map(|line| Line::Expected(line));
        return expected.chain(got.iter().map(|line| Line::Got(line))).collect();
    }
    without_the_far(all(expected, got))
}

/// So many lines around what differs are shown: enough to know where one is.
const AROUND: usize = 3;

/// Of what is in both, only what is near to something that is not. One line is never left out for
/// another that says so.
fn without_the_far(lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    let differs = |line: &Line<'_>| !matches!(line, Line::Both(_));
    let is_near = |at: usize| {
        let from = at.saturating_sub(AROUND);
        lines[from..lines.len().min(at + AROUND + 1)].iter().any(differs)
    };
    let mut near = Vec::with_capacity(lines.len());
    let mut at = 0;
    while at < lines.len() {
        let far = (at..lines.len()).take_while(|at| !is_near(*at)).count();
        match far {
            0 | 1 => near.push(lines[at]),
            _ => near.push(Line::Alike(far)),
        }
        at += far.max(1);
    }
    near
}

fn all<'a>(expected: &'a [String], got: &'a [String]) -> Vec<Line<'a>> {
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

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    fn shown(expected: &str, got: &str) -> String {
        let (expected, got) = (lines(expected), lines(got));
        let shown = |line: &Line<'_>| match line {
            Line::Both(text) => format!(" {text}"),
            Line::Expected(text) => format!("-{text}"),
            Line::Got(text) => format!("+{text}"),
            Line::Alike(lines) => format!("({lines})"),
        };
        unified(&expected, &got).iter().map(shown).collect()
    }

    #[test]
    fn what_both_have_is_there_once_and_in_order() {
        assert_eq!(shown("abcd", "axcye"), " a-b+x c-d+y+e");
        assert_eq!(shown("", ""), "");
    }

    #[test]
    fn what_is_far_from_any_difference_is_only_counted() {
        assert_eq!(shown("12345x6789", "12345y6789"), "(2) 3 4 5-x+y 6 7 8 9");
        assert_eq!(shown("x1234567890y", "1234567890"), "-x 1 2 3(4) 8 9 0-y");
    }
}
