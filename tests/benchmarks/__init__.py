"""Speed and memory beside what people use today; ``make bench`` runs them at full size."""
