#pragma once

#include <CLI/CLI.hpp>
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

}  // namespace memlane
