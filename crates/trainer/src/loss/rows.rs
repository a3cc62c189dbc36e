//! The supervised rows of a micro-batch with their losses: what the head is given as a value.

use ops::head_loss::{Factors, Found, RowLoss, Taken};

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

impl RowLoss for SupervisedRows {
    fn row(&self, row: usize, logits: &mut [f32]) -> [f64; 6] {
        self.objective
            .row(logits, self.targets[row], self.teacher.get(row))
            .to_array()
    }

    fn taken(&self, row: usize) -> Taken<'_> {
        let teacher = self.teacher.get(row);
        Taken {
            ids: teacher.map_or(&[], |teacher| teacher.ids),
            target: self.targets[row],
            scale: self.objective.rest_scale(teacher) as f32,
        }
    }

    fn charge(
        &self,
        row: usize,
        found: &Found<'_>,
        gradient: &mut [f32],
        target: &mut f32,
    ) -> ([f64; 6], Factors) {
        let (id, teacher) = (self.targets[row], self.teacher.get(row));
        let (parts, factors) = self
            .objective
            .charge_found(found, id, teacher, gradient, target);
        (parts.to_array(), factors)
    }
}

/// The same losses where nothing is differentiated: a row's logits stay logits, which is no gradient, so none may be
/// asked of the head.
#[derive(Clone, Debug)]
pub struct WithoutGradient<'a>(pub &'a SupervisedRows);

impl RowLoss for WithoutGradient<'_> {
    fn row(&self, row: usize, logits: &mut [f32]) -> [f64; 6] {
        let Self(rows) = self;
        rows.objective
            .evaluate(logits, rows.targets[row], rows.teacher.get(row))
            .to_array()
    }

    fn taken(&self, row: usize) -> Taken<'_> {
        self.0.taken(row)
    }

    fn charge(
        &self,
        row: usize,
        found: &Found<'_>,
        gradient: &mut [f32],
        target: &mut f32,
    ) -> ([f64; 6], Factors) {
        self.0.charge(row, found, gradient, target)
    }
}
