# SPDX-License-Identifier: MIT
#
# The tables of bench/apps. Input: lines of test, result, allocator, round, value, unit, with tabs
# between them; results are rate (more is better), wall, cpu and peak (less is better). Variable
# order: the allocators' names, hakmem first.

BEGIN {
    name_count = split(order, names, " ")
    result_count = split("rate wall cpu peak", results, " ")
    heading["wall"] = "wall, s"
    heading["cpu"] = "CPU, s"
    heading["peak"] = "peak, MiB"
}

{
    if (!($1 in seen)) {
        seen[$1]
        tests[++test_count] = $1
    }
    unit[$1, $2] = $6
    figure[$1, $2, $3, $4] = $5
    if ($4 > last)
        last = $4
}

# Sorts values[1] to values[count] and returns the middle.
function median(values, count,    i, j, held) {
    for (i = 2; i <= count; i++) {
        held = values[i]
        for (j = i - 1; j >= 1 && values[j] > held; j--)
            values[j + 1] = values[j]
        values[j + 1] = held
    }
    return count % 2 ? values[(count + 1) / 2] : (values[count / 2] + values[count / 2 + 1]) / 2
}

# Into sorted[] and middle; returns how many rounds have the figure.
function gather(test, result, name,    round, count) {
    count = 0
    for (round = 1; round <= last; round++)
        if ((test, result, name, round) in figure)
            sorted[++count] = figure[test, result, name, round] + 0
    if (count)
        middle = median(sorted, count)
    return count
}

function digits(value) {
    return value >= 1000 ? "%.0f" : value >= 100 ? "%.1f" : value >= 10 ? "%.2f" : "%.3f"
}

function spread(test, result, name,    count, format) {
    count = gather(test, result, name)
    if (!count)
        return "failed"
    format = digits(middle)
    return sprintf(format " (" format " to " format ")", middle, sorted[1], sorted[count])
}

function best_figure(test, result, name,    count) {
    count = gather(test, result, name)
    return sorted[result == "rate" ? count : 1]
}

# The allocator other than hakmem with the best median.
function best_of(test, result,    n, best, best_middle) {
    best = ""
    for (n = 2; n <= name_count; n++) {
        if (!gather(test, result, names[n]))
            continue
        if (best == "" || (result == "rate" ? middle > best_middle : middle < best_middle)) {
            best = names[n]
            best_middle = middle
        }
    }
    return best
}

# How far hakmem is ahead of name: "1.25 (1.20 to 1.31)" from the rounds, and in best_ratio from the
# best figure of both, which other load on the machine disturbs least.
function ahead(test, result, name,    round, count, ours, theirs, ratios, middle_ratio) {
    count = 0
    for (round = 1; round <= last; round++) {
        if (!((test, result, "hakmem", round) in figure) ||
            !((test, result, name, round) in figure))
            continue
        ours = figure[test, result, "hakmem", round]
        theirs = figure[test, result, name, round]
        if (ours > 0 && theirs > 0)
            ratios[++count] = result == "rate" ? ours / theirs : theirs / ours
    }
    best_ratio = 0
    if (!count)
        return "-"
    middle_ratio = median(ratios, count)
    best_ratio = best_figure(test, result, name) / best_figure(test, result, "hakmem")
    if (result == "rate")
        best_ratio = 1 / best_ratio
    return sprintf("%.3f (%.3f to %.3f)", middle_ratio, ratios[1], ratios[count])
}

function print_program(test,    n, r, result) {
    printf "\n%s\n  %-10s", test, ""
    for (r = 1; r <= result_count; r++) {
        result = results[r]
        if ((test, result) in unit)
            printf "  %-28s", result == "rate" ? unit[test, result] : heading[result]
    }
    printf "\n"
    for (n = 1; n <= name_count; n++) {
        printf "  %-10s", names[n]
        for (r = 1; r <= result_count; r++)
            if ((test, results[r]) in unit)
                printf "  %-28s", spread(test, results[r], names[n])
        printf "\n"
    }
}

# The best of a round may be another allocator each time, by luck; so it is the best by the median.
function print_ratio(test, result,    best, text) {
    best = text = ""
    best_ratio = 0
    if ((test, result) in unit) {
        best = best_of(test, result)
        text = ahead(test, result, best)
    }
    printf("  %-9s %-22s %5s", best, text, best_ratio ? sprintf("%.3f", best_ratio) : "")
}

END {
    for (t = 1; t <= test_count; t++)
        print_program(tests[t])
    print "\nbest other allocator / hakmem (a rate: hakmem / best other); above 1 hakmem is ahead"
    print "median of the rounds (least to greatest), and the best round of one to that of the other"
    printf "  %-30s  %-38s  %-38s  %s\n", "", "time", "CPU", "peak memory"
    for (t = 1; t <= test_count; t++) {
        test = tests[t]
        printf "  %-30s", test
        print_ratio(test, (test, "wall") in unit ? "wall" : "rate")
        print_ratio(test, "cpu")
        print_ratio(test, "peak")
        printf "\n"
    }
    print "\nthe same against each of them, time only: no best is picked after the fact, by noise"
    printf "  %-30s", ""
    for (n = 2; n <= name_count; n++)
        printf "  %-24s", names[n]
    printf "\n"
    for (t = 1; t <= test_count; t++) {
        test = tests[t]
        printf "  %-30s", test
        for (n = 2; n <= name_count; n++)
            printf "  %-24s", ahead(test, (test, "wall") in unit ? "wall" : "rate", names[n])
        printf "\n"
    }
}
