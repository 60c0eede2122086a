//! What a row of active checks says of an endpoint.

/// The answers of one endpoint to the checks so far.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    /// Whether it is taken to be well; `None` before the first answer.
    well: Option<bool>,
    /// How many answers in a row say otherwise.
    against: u32,
}

impl Answers {
    /// Before the first answer, which counts at once.
    pub const fn none() -> Self {
        Self { well: None, against: 0 }
    }

    /// Takes one more answer. After `healthy` good ones in a row an endpoint that was ill is well, after `unhealthy` bad
    /// ones one that was well is ill. Whether it is well, where this answer changes that or is the first.
    pub fn heard(&mut self, good: bool, healthy: u32, unhealthy: u32) -> Option<bool> {
        if self.well == Some(good) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = if good { healthy } else { unhealthy };
        if self.well.is_some() && self.against < enough {
            return None;
        }
        *self = Self { well: Some(good), against: 0 };
        self.well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each answer of a row (`+` good, `-` bad) decides: `W` well, `I` ill, `.` nothing.
    fn decided(row: &str) -> String {
        let mut answers = Answers::none();
        let decide = |c| match answers.heard(c == '+', 2, 3) {
            Some(true) => 'W',
            Some(false) => 'I',
            None => '.',
        };
        row.chars().map(decide).collect()
    }

    #[test]
    fn the_first_answer_counts_at_once_and_later_ones_in_rows() {
        for (row, expected) in [
            ("+", "W"),
            ("-", "I"),
            ("---", "I.."),
            ("-++", "I.W"),
            ("-+-++", "I...W"),
            ("+---", "W..I"),
            ("+--+---", "W.....I"),
            ("+---+--++", "W..I....W"),
        ] {
            assert_eq!(decided(row), expected, "{row}");
        }
    }
}
