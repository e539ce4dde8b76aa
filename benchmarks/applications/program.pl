# An ordinary Perl program: hashes of lists, string building, sorting, substitution.
use strict;
use warnings;

my (%index, $text);
for my $i (0 .. 500_000) {
    my $word = "word" . ($i * 7919 % 30_011);
    push @{ $index{$word} }, $i;
    $text .= "$word " if $i % 5 == 0;
}
(my $upper = $text) =~ s/(\w+) /\U$1\E,/g;
my @parts = split /,/, $upper;
my @sorted = sort { $a cmp $b } @parts;
my $sum = 0;
$sum += scalar @{ $index{$_} } for sort keys %index;
print "$sum ", scalar(@sorted), " $sorted[0] $sorted[-1]\n";
