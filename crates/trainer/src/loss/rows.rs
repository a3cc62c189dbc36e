//! The supervised rows of a micro-batch with their losses: what the head is given as a value.

use super::mixed::Objective;
use super::teacher::TeacherRows;

/// The supervised rows of one micro-batch: `targets` (`[S]`) and, where stored, the teacher at each of them.
#[derive(Clone, Debug)]
pub struct SupervisedRows {
    pub objective: Objective,
    pub targets: Vec<u32>,
    /// Empty, or one per target.
    pub teacher: TeacherRows,
}

impl ops::head_loss::RowLoss for SupervisedRows {
    fn row(&self, row: usize, logits: &mut [f32]) -> [f64; 6] {
        self.objective
            .row(logits, self.targets[row], self.teacher.get(row))
            .to_array()
    }
}

/// The same losses where nothing is differentiated: a row's logits stay logits, which is no gradient, so none may be
/// asked of the head.
#[derive(Clone, Debug)]
pub struct WithoutGradient<'a>(pub &'a SupervisedRows);

impl ops::head_loss::RowLoss for WithoutGradient<'_> {
    fn row(&self, row: usize, logits: &mut [f32]) -> [f64; 6] {
        let Self(rows) = self;
        rows.objective
            .evaluate(logits, rows.targets[row], rows.teacher.get(row))
            .to_array()
    }
}
