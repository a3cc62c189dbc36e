//! Relational knowledge distillation (Park et al. 2019, arXiv:1904.05068): distances and angles between the examples of
//! a step, each represented by one vector.
//!
//! - distance: d_ij = |x_i − x_j| over the mean of all pairs'; Huber loss (δ = 1) of the difference to the teacher's, mean over
//!   pairs.
//! - angle: cos ∠(x_i x_j x_k) at every x_j of three different examples; the same loss, mean over triples.
//!
//! In f64, on vectors that are few: a step's examples.

use rayon::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rkd {
    Distance,
    Angle,
}

/// One vector per example, [E, D].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    pub values: Vec<f64>,
    pub width: usize,
}

impl Vectors {
    fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..(i + 1) * self.width]
    }
}

/// The loss, and its gradient by the student's vectors, laid out as they are.
///
/// Fewer than two examples (three for angles) have no relations: 0.
pub fn rkd(kind: Rkd, student: &Vectors, teacher: &Vectors) -> (f64, Vec<f64>) {
    match kind {
        Rkd::Distance => distance(student, teacher),
        Rkd::Angle => angle(student, teacher),
    }
}

/// Huber loss with δ = 1, and its derivative.
fn huber(x: f64) -> (f64, f64) {
    match x.abs() < 1.0 {
        true => (0.5 * x * x, x),
        false => (x.abs() - 0.5, x.signum()),
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn apart(of: &Vectors, i: usize, j: usize) -> f64 {
    let squares = of
        .row(i)
        .iter()
        .zip(of.row(j))
        .map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f64>().sqrt()
}

fn distance(student: &Vectors, teacher: &Vectors) -> (f64, Vec<f64>) {
    let n = student.len();
    let mut gradient = vec![0.0; student.values.len()];
    let pairs: Vec<(usize, usize)> = (0..n)
        .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
        .collect();
    let distances = |of: &Vectors| -> (Vec<f64>, f64) {
        let all: Vec<f64> = pairs.iter().map(|&(i, j)| apart(of, i, j)).collect();
        let mean = all.iter().sum::<f64>() / pairs.len().max(1) as f64;
        (all, mean)
    };
    let ((own, own_mean), (other, other_mean)) = (distances(student), distances(teacher));
    if pairs.is_empty() || own_mean == 0.0 || other_mean == 0.0 {
        return (0.0, gradient);
    }
    let count = pairs.len() as f64;
    let (mut value, mut slopes, mut through_mean) = (0.0, Vec::with_capacity(pairs.len()), 0.0);
    for (own, other) in own.iter().zip(&other) {
        let (loss, slope) = huber(own / own_mean - other / other_mean);
        value += loss / count;
        slopes.push(slope / count);
        through_mean += slope / count * own / (own_mean * own_mean);
    }
    for ((&(i, j), &d), slope) in pairs.iter().zip(&own).zip(slopes) {
        if d == 0.0 {
            continue;
        }
        let factor = (slope / own_mean - through_mean / count) / d;
        for column in 0..student.width {
            let step = factor * (student.row(i)[column] - student.row(j)[column]);
            gradient[i * student.width + column] += step;
            gradient[j * student.width + column] -= step;
        }
    }
    (value, gradient)
}

/// Directions from example j to each other one, and their lengths; a direction of no length is 0.
fn directions(of: &Vectors, j: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let others = (0..of.len()).map(|i| {
        let apart = apart(of, i, j);
        let step = of.row(i).iter().zip(of.row(j)).map(|(a, b)| a - b);
        let unit = step.map(|x| if apart == 0.0 { 0.0 } else { x / apart });
        (unit.collect(), apart)
    });
    others.unzip()
}

fn angle(student: &Vectors, teacher: &Vectors) -> (f64, Vec<f64>) {
    let (n, width) = (student.len(), student.width);
    let mut gradient = vec![0.0; student.values.len()];
    if n < 3 {
        return (0.0, gradient);
    }
    let count = (n * (n - 1) * (n - 2) / 2) as f64;
    let at = |j: usize| -> (f64, Vec<f64>) {
        let ((own, lengths), (other, _)) = (directions(student, j), directions(teacher, j));
        let (mut value, mut steps) = (0.0, vec![vec![0.0; width]; n]);
        for i in (0..n).filter(|&i| i != j) {
            for k in (i + 1..n).filter(|&k| k != j) {
                let (loss, slope) = huber(dot(&own[i], &own[k]) - dot(&other[i], &other[k]));
                value += loss / count;
                let slope = slope / count;
                for column in 0..width {
                    steps[i][column] += slope * own[k][column];
                    steps[k][column] += slope * own[i][column];
                }
            }
        }
        let mut gradient = vec![0.0; n * width];
        for i in (0..n).filter(|&i| lengths[i] > 0.0) {
            let along = dot(&steps[i], &own[i]);
            for column in 0..width {
                let step = (steps[i][column] - along * own[i][column]) / lengths[i];
                gradient[i * width + column] += step;
                gradient[j * width + column] -= step;
            }
        }
        (value, gradient)
    };
    let parts: Vec<(f64, Vec<f64>)> = (0..n).into_par_iter().map(at).collect();
    let mut value = 0.0;
    for (loss, part) in parts {
        value += loss;
        gradient.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    (value, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(n: usize, width: usize, seed: f64) -> Vectors {
        let values = (0..n * width).map(|i| ((i as f64 + 1.0) * seed).sin());
        Vectors {
            values: values.collect(),
            width,
        }
    }

    #[test]
    fn gradients_are_finite_differences() {
        for kind in [Rkd::Distance, Rkd::Angle] {
            for n in [2, 3, 5] {
                let (student, teacher) = (vectors(n, 4, 0.7), vectors(n, 6, 1.3));
                let (_, gradient) = rkd(kind, &student, &teacher);
                for (i, found) in gradient.iter().enumerate() {
                    let at = |delta: f64| {
                        let mut moved = student.clone();
                        moved.values[i] += delta;
                        rkd(kind, &moved, &teacher).0
                    };
                    let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
                    assert!(
                        (found - numeric).abs() < 1e-8,
                        "{kind:?} {n}: {found} {numeric}"
                    );
                }
            }
        }
    }

    #[test]
    fn equal_relations_cost_nothing() {
        for kind in [Rkd::Distance, Rkd::Angle] {
            for n in [0, 1, 2, 5] {
                let student = vectors(n, 4, 0.7);
                let mut teacher = student.clone();
                // Neither angles nor relative distances know a scale.
                teacher.values.iter_mut().for_each(|x| *x *= 3.0);
                let (value, gradient) = rkd(kind, &student, &teacher);
                assert!(value < 1e-20 && gradient.iter().all(|x| x.abs() < 1e-12));
            }
        }
    }
}
