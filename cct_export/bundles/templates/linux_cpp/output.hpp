// What the values of the model's output mean.
#pragma once

#include <cstddef>
#include <vector>

// Whether each of so many values is a decision of its own, and not the largest one the class.
bool is_binary(std::size_t values);

// What a value has to exceed for a yes, where each is a decision of its own.
double threshold();

// Returns the probability of each class; a single value stands for the second of two classes.
std::vector<double> probabilities(const std::vector<float>& values);
