def write_page(settings, study, choice, failed):
    return settings.out / "ablation.html"
