"""Banks of wrong and of right answers, one module per problem: what the graders are graded by."""
