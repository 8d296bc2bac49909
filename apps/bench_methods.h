#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "memory/lookup.h"
#include "runtime/method.h"

namespace memlane {

/// --methods, shared by the benches. Its values are parsed by parse_methods.
void add_methods(CLI::App& app, std::vector<std::string>& methods);
/// Throws InputError for a method that is none, or is there twice.
std::vector<Method> parse_methods(const std::vector<std::string>& texts);

/// Throws InputError, naming the option, unless every length is a number of tokens that a bench may take.
void check_lengths(std::string_view option, const std::vector<std::size_t>& lengths);

/// Throws InputError, naming the method, if reading `length` tokens with it would not fit in memory. The weights are
/// loaded already.
void require_method_room(const ModelConfig& config, const MethodSettings& settings, DType compute, const Lookup& lookup,
                         std::size_t length, std::string_view method);

/// Throws InputError, naming method and length, if a question of so many tokens and `room` more have no place in the
/// method's window.
void require_question_room(const MethodSettings& settings, std::size_t question, std::size_t room, std::size_t length,
                           std::string_view method);

/// Throws InputError if there is no such index for the model's heads.
void require_lookup(const ModelConfig& config, const Lookup& lookup);

/// Computes one cell of a bench so that its failure loses no other. work: returns false if it was interrupted. Returns
/// false if the cell is not complete: if it failed, one line on standard error has said so. An InputError goes on, with
/// the cell's name, while nothing is finished that could be lost.
bool run_cell_safely(const std::string& cell, bool any_finished, const std::function<bool()>& work);
/// "method yarn at 8192 tokens": how messages name a cell.
std::string cell_name(const Method& method, std::size_t length);

}  // namespace memlane
