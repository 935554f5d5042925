/* The exhaustive engine as plain C, for comparison: one price moves, every holder is updated and decided.
 *
 * Rows of one instrument lie side by side: holder, quantity, maintenance before. State of a holder: equity, maintenance. A schedule is convex, so its
 * value is the greatest of its lines. Returns how many holders changed level; their numbers go to `changed`.
 */
#include <math.h>
#include <stdint.h>

long step(long rows, const int32_t *holder, const double *quantity, double *maintenance, double move, double price,
          const double *rate, const double *deduction, long tiers, double *state, int8_t *level, int32_t *changed,
          double call, double liquidation)
{
    long found = 0;
    for (long i = 0; i < rows; i++) {
        double size = fabs(quantity[i]) * price;
        double needed = size * rate[0];
        for (long t = 1; t < tiers; t++) {
            double line = size * rate[t] - deduction[t];
            needed = line > needed ? line : needed;
        }
        double *s = state + 2 * holder[i];
        double equity = s[0] + quantity[i] * move;
        double total = s[1] + needed - maintenance[i];
        maintenance[i] = needed;
        s[0] = equity;
        s[1] = total;
        int8_t now = equity <= 0 || total >= liquidation * equity ? 2 : total >= call * equity;
        if (now != level[holder[i]]) {
            level[holder[i]] = now;
            changed[found++] = holder[i];
        }
    }
    return found;
}
